use clap::Parser as _;

use super::*;
use crate::config::Layers;

#[derive(Debug, clap::Parser)]
struct Command {
    #[command(flatten)]
    args: Args,
}

/// The answer of the command, or its error.
fn shown(options: &str) -> Result<String, String> {
    answer(&parsed(options)?).map_err(|error| error.to_string())
}

fn parsed(options: &str) -> Result<Args, String> {
    let words = std::iter::once("plan").chain(options.split_whitespace());
    Command::try_parse_from(words).map(|command| command.args).map_err(|error| error.to_string())
}

const OPTIONS: &str =
    "--users 100000 --devices 2.3 --active-hours 3 --token-lifetime 4h --period 55m --budget 20 --outage 2h";

#[test]
fn the_answer_is_the_golden_one() {
    assert_eq!(shown(OPTIONS).unwrap(), include_str!("golden.txt"));
}

#[test]
fn the_example_of_the_help_is_the_golden_one() {
    assert!(HELP.contains(OPTIONS));
}

#[test]
fn the_answer_follows_from_the_check_interval_of_the_provider() {
    let at = |check_interval| {
        let mut args = parsed("--users 100000 --budget 20").unwrap();
        let mut preset = *args.preset;
        (preset.display_name, preset.check_interval) = ("Example", check_interval);
        args.preset = Box::leak(Box::new(preset));
        answer(&args).unwrap().replace('\n', " ")
    };
    let half_an_hour = at(Some(Duration::from_secs(30 * 60)));
    assert!(half_an_hour.contains("one of each live token in 25m"), "{half_an_hour}");
    assert!(half_an_hour.contains("older than the 30m that Example demands"), "{half_an_hour}");
    assert_eq!(at(None), "Example validates no tokens, so no budget is needed. ");
}

#[test]
fn defaults_are_the_policys() {
    let default = Layers::defaults().value("provider.preset").cloned();
    assert_eq!(default, Some(parsed("--users 1").unwrap().preset.name.into()));
    let explicit =
        "--users 5000 --devices 2 --active-hours 3 --token-lifetime 4h --period 55m --budget 20 --outage 1h";
    assert_eq!(shown("--users 5000"), shown(explicit));
}

#[test]
fn a_budget_that_suffices_is_confirmed() {
    let table = [
        ("--budget 35", "budget of 35 validations a second suffices, with headroom. 35 would be enough."),
        ("--budget 35", "With the budget of 35 it takes 45m to catch up."),
        ("--budget 30", "barely suffices"),
        ("--budget 30", "With the budget of 30 it takes 52m; with 35 it takes 45m to catch up"),
        ("--budget 28.9", "With the budget of 28.9 it takes 54m; with 35"),
        ("--budget 28.8", "NOT suffice. At the busiest time of day more validations fall due"),
        ("--budget 28.5", "NOT suffice. In one hour of the day more validations fall due"),
    ];
    for (budget, words) in table {
        let options = OPTIONS.replace("--budget 20", budget);
        let shown = shown(&options).unwrap().replace('\n', " ");
        assert!(shown.contains(words), "{budget}: {words:?} is missing:\n{shown}");
    }
}

#[test]
fn other_mistakes_are_reported() {
    let long = shown(&OPTIONS.replace("55m", "58m")).unwrap();
    assert!(long.contains("A period of 58m is too long"), "{long}");
    let many = shown(&OPTIONS.replace("100000", "10000000")).unwrap();
    assert!(
        many.replace('\n', " ").contains(
            "than the 100 per second that a gateway sends by default; raise provider.refreshes_per_second"
        ),
        "{many}"
    );
    let calm = shown(&OPTIONS.replace("2h", "0s")).unwrap();
    assert!(!calm.contains("outage"), "{calm}");
}

#[test]
fn bad_input_is_reported_with_its_option() {
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
        ("--users 1 --preset nobody", "expected a name that the setting provider.preset takes"),
        ("--users 1 --period 55", "expected a span of time, such as 55m"),
        ("--users 1 --period 2days", "--period 2days is not a period from 1 minute to 1 day"),
        ("--users 1 --budget 0", "--budget 0 is not a number of validations a second from 0.01 to 1,000,000"),
        ("--users 1 --budget NaN", "--budget NaN is not"),
        ("--users 1 --budget 1e9", "--budget 1000000000 is not"),
        ("--users 1 --outage 31days", "is not an outage of up to 30 days"),
    ];
    for (options, words) in table {
        let error = shown(options).unwrap_err();
        assert!(error.contains(words), "{options}: {words:?} is missing:\n{error}");
    }
}

#[test]
fn every_line_fits_a_terminal() {
    for options in
        [OPTIONS, "--users 1", "--users 10000000000 --devices 1000 --active-hours 24 --budget 0.01"]
    {
        for line in shown(options).unwrap().lines() {
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
