use clap::Parser as _;

use super::*;

#[derive(Debug, clap::Parser)]
struct Command {
    #[command(flatten)]
    args: Args,
}

/// What the command answers, or complains about.
fn told(options: &str) -> Result<String, String> {
    let words = std::iter::once("plan").chain(options.split_whitespace());
    let command = Command::try_parse_from(words).map_err(|error| error.to_string())?;
    answer(&command.args).map_err(|error| error.to_string())
}

const OPTIONS: &str =
    "--users 100000 --devices 2.3 --active-hours 3 --token-lifetime 4h --period 55m --budget 20 --outage 2h";

#[test]
fn the_answer_is_as_it_was() {
    assert_eq!(told(OPTIONS).unwrap(), include_str!("golden.txt"));
}

#[test]
fn the_example_of_the_help_is_the_golden_one() {
    assert!(HELP.contains(OPTIONS));
}

#[test]
fn defaults_are_the_policys() {
    assert_eq!(limits::SWEEP_PERIOD, Duration::from_secs(55 * 60), "the help says so");
    let explicit =
        "--users 5000 --devices 2 --active-hours 3 --token-lifetime 4h --period 55m --budget 20 --outage 1h";
    assert_eq!(told("--users 5000"), told(explicit));
}

#[test]
fn a_budget_that_suffices_is_told_so() {
    let table = [
        ("--budget 35", "budget of 35 validations a second suffices, with head-room. 35 would be enough."),
        ("--budget 35", "With the budget of 35 it takes 45m to make up for them."),
        ("--budget 30", "suffices, but only just"),
        ("--budget 30", "With the budget of 30 it takes 52m; with 35 it takes 45m to make"),
        ("--budget 28.9", "With the budget of 28.9 it takes 54m; with 35"),
        ("--budget 28.8", "NOT suffice. At the busiest time of day more falls due"),
        ("--budget 28.5", "NOT suffice. In one hour of the day more falls due"),
    ];
    for (budget, words) in table {
        let options = OPTIONS.replace("--budget 20", budget);
        let told = told(&options).unwrap().replace('\n', " ");
        assert!(told.contains(words), "{budget}: {words:?} is not told:\n{told}");
    }
}

#[test]
fn what_else_is_wrong_is_told() {
    let long = told(&OPTIONS.replace("55m", "58m")).unwrap();
    assert!(long.contains("A period of 58m is too long"), "{long}");
    let many = told(&OPTIONS.replace("100000", "10000000")).unwrap();
    assert!(
        many.replace('\n', " ").contains("unless provider.refreshes_per_second says otherwise"),
        "{many}"
    );
    let calm = told(&OPTIONS.replace("2h", "0s")).unwrap();
    assert!(!calm.contains("outage"), "{calm}");
}

#[test]
fn bad_input_is_told_by_its_option() {
    let table = [
        ("--users 0", "--users 0 is not a number of users from 1 to"),
        ("--users -1", "invalid value '-1' for '--users"),
        ("--users 99999999999999", "--users 99999999999999 is not a number of users"),
        ("--users 99999999999999999999", "invalid value '99999999999999999999' for '--users"),
        ("", "--users <NUMBER>"),
        ("--users 1 --devices 0", "--devices 0 is not a number of devices for each user from 0.01 to 1,000"),
        ("--users 1 --devices -2", "--devices -2 is not"),
        ("--users 1 --devices NaN", "--devices NaN is not"),
        ("--users 1 --devices inf", "--devices inf is not"),
        ("--users 1 --devices many", "invalid value 'many' for '--devices"),
        ("--users 1 --active-hours 25", "--active-hours 25 is not a number of hours from 0.01 to 24"),
        ("--users 1 --token-lifetime 0s", "--token-lifetime 0s is not a lifetime"),
        ("--users 1 --token-lifetime 900years", "--token-lifetime 900years is not a lifetime"),
        ("--users 1 --token-lifetime -4h", "expected a span of time, such as 55m"),
        ("--users 1 --period 55", "expected a span of time, such as 55m"),
        ("--users 1 --period 2days", "--period 2days is not a period from 1 minute to 1 day"),
        ("--users 1 --budget 0", "--budget 0 is not a number of validations a second from 0.01 to 1,000,000"),
        ("--users 1 --budget NaN", "--budget NaN is not"),
        ("--users 1 --budget 1e9", "--budget 1000000000 is not"),
        ("--users 1 --outage 31days", "is not an outage of up to 30 days"),
    ];
    for (options, words) in table {
        let error = told(options).unwrap_err();
        assert!(error.contains(words), "{options}: {words:?} is not told:\n{error}");
    }
}

#[test]
fn every_line_fits_a_terminal() {
    for options in
        [OPTIONS, "--users 1", "--users 10000000000 --devices 1000 --active-hours 24 --budget 0.01"]
    {
        for line in told(options).unwrap().lines() {
            assert!(line.chars().count() <= COLUMNS, "{line}");
        }
    }
}

#[test]
fn numbers_are_written_for_people() {
    for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
        assert_eq!(grouped(number), text);
    }
    for (number, text) in [
        (0.0, "0"),
        (0.004, "less than 0.01"),
        (0.25, "0.25"),
        (5.0, "5"),
        (28.86, "28.9"),
        (1_234.5, "1,235"),
    ] {
        assert_eq!(rate(number), text);
    }
    for (share, text) in [(0.0, ""), (0.003, "▏"), (0.05, "██"), (0.0625, "██▌")] {
        assert_eq!(bar(share), text);
    }
    assert_eq!(bar(7.0).chars().count(), 40);
}
