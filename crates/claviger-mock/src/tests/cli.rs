//! The command line.

use clap::{CommandFactory as _, Parser as _};

use super::{ADA, encode};
use crate::cli;
use crate::{
    DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, Endpoint, Fault, FaultKind, LiveTokenLimit, MalformedBody, RetryAfter,
};

#[derive(Debug, clap::Parser)]
struct Command {
    #[command(flatten)]
    args: cli::Args,
}

fn parse(options: &[&str]) -> Result<cli::Args, String> {
    let words = ["mock", "--listen", "127.0.0.1:0"].into_iter().chain(options.iter().copied());
    Command::try_parse_from(words).map(|command| command.args).map_err(|error| error.to_string())
}

#[test]
fn a_fault_is_written_as_endpoint_what_and_options() {
    use Endpoint::{HelixUsers, Keys, Token, Validate};
    let table = [
        ("token:status=503:times=3", Fault::times(3, Token, FaultKind::status(503))),
        (
            "validate:429:retry-after=5",
            Fault::always(Validate, FaultKind::too_many_requests(Some(RetryAfter::Seconds(5)))),
        ),
        ("token:close-after", Fault::always(Token, FaultKind::CloseAfter)),
        (
            "token:close-before:grant=refresh_token:after=2",
            Fault::always(Token, FaultKind::CloseBefore).grant_type("refresh_token").after(2),
        ),
        ("helix-users:delay-ms=20", Fault::always(HelixUsers, FaultKind::Delay { delay_ms: 20 })),
        ("helix_users:delay-ms=20", Fault::always(HelixUsers, FaultKind::Delay { delay_ms: 20 })),
        (
            "keys:malformed=other-shape:times=1",
            Fault::once(Keys, FaultKind::Malformed { body: MalformedBody::OtherShape }),
        ),
    ];
    for (text, expected) in table {
        assert_eq!(text.parse::<Fault>(), Ok(expected), "{text}");
    }
}

#[test]
fn an_invalid_fault_gets_an_error_that_names_valid_ones() {
    let table = [
        ("", "is not an endpoint; the endpoints are authorize, token,"),
        ("tokens:status=503", "\"tokens\" is not an endpoint"),
        ("token", "say what happens, as in token:status=503"),
        ("token:", "is nothing that can happen"),
        ("token:explode", "close-after"),
        ("token:close-after=1", "is nothing that can happen"),
        ("token:status", "status needs a number from 200, not \"\""),
        ("token:status=abc", "status needs a number"),
        ("token:199", "from 200"),
        ("token:status=600", "from 200 to 599, not 600"),
        ("token:delay-ms=0", "delay-ms needs a number from 1"),
        ("token:malformed=cute", "garbage, truncated, html or other-shape"),
        ("token:status=503:times=0", "times needs a number from 1"),
        ("token:status=503:times", "times needs a number from 1"),
        ("token:status=503:times=1:times=2", "times is given twice"),
        ("token:status=503:often=3", "\"often\" is not an option; the options are times,"),
        ("token:close-after:retry-after=5", "retry-after needs status="),
        ("validate:status=503:grant=refresh_token", "grant is for the endpoint token only"),
        ("token:status=503:grant", "as in grant=refresh_token"),
    ];
    for (text, expected) in table {
        let told = text.parse::<Fault>().unwrap_err();
        assert!(told.contains(expected), "{text}: {told}");
        let told = parse(&["--fault", text]).unwrap_err();
        assert!(told.contains("--fault") && told.contains(expected), "{text}: {told}");
    }
}

#[test]
fn the_limit_of_live_tokens_is_an_option() {
    let table = [
        (vec![], Some(LiveTokenLimit::KillsOldest(50))),
        (vec!["--live-token-limit", "off"], Some(LiveTokenLimit::Off)),
        (vec!["--live-token-limit", "kills-oldest:3"], Some(LiveTokenLimit::KillsOldest(3))),
        (vec!["--live-token-limit", "refuses:1"], Some(LiveTokenLimit::Refuses(1))),
        (vec!["--live-token-limit", "refuses:0"], None),
        (vec!["--live-token-limit", "refuses"], None),
        (vec!["--live-token-limit", "refuses:many"], None),
        (vec!["--live-token-limit", "off:3"], None),
    ];
    for (options, expected) in table {
        assert_eq!(parse(&options).map(|args| args.live_token_limit).ok(), expected, "{options:?}");
    }
}

#[tokio::test]
async fn options_apply_from_the_first_request() {
    let options = [
        "--refresh-kills-old-access-token",
        "--live-token-limit",
        "refuses:7",
        "--fault",
        "token:status=503:times=1",
        "--fault",
        "validate:close-after",
    ];
    let server = cli::start(&parse(&options).unwrap(), &mut Vec::new()).unwrap();
    server.with(|mock| {
        assert!(mock.settings().refresh_kills_old_access_token);
        assert_eq!(mock.settings().live_token_limit, LiveTokenLimit::Refuses(7));
        assert_eq!(mock.faults().count(), 2);
        let tokens = mock.sign_in(ADA, DEMO_CLIENT_ID, &[], 0).unwrap();
        let form = encode(&[
            ("client_id", DEMO_CLIENT_ID),
            ("client_secret", DEMO_CLIENT_SECRET),
            ("grant_type", "refresh_token"),
            ("refresh_token", &tokens.refresh_token),
        ]);
        let mut refresh = || {
            let request = http::Request::post("/oauth2/token")
                .header("content-type", "application/x-www-form-urlencoded")
                .body(bytes::Bytes::from(form.clone()))
                .unwrap();
            mock.handle(&request, 0).response.status().as_u16()
        };
        assert_eq!((refresh(), refresh()), (503, 200));
    });
}

#[test]
fn help_shows_valid_faults_and_no_internal_names() {
    let help = Command::command().render_long_help().to_string();
    for word in ["OneTime", "KillsOldest", "CloseAfter"] {
        assert!(!help.contains(word), "{help}");
    }
    let examples: Vec<&str> =
        help.split("--fault ").skip(1).filter_map(|rest| rest.split_whitespace().next()).collect();
    let examples: Vec<&str> = examples.into_iter().map(|text| text.trim_matches('\'')).collect();
    let shown: Vec<Result<Fault, _>> =
        examples.into_iter().filter(|text| !text.starts_with('<')).map(str::parse).collect();
    assert!(shown.len() >= 3 && shown.iter().all(Result::is_ok), "{shown:?}");
    for endpoint in Endpoint::ALL {
        assert!(help.contains(&endpoint.name().replace('_', "-")), "{endpoint:?} is missing in {help}");
    }
}
