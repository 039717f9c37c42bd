//! Answers to browsers during an outage of the provider. No session or cookie is lost.

use claviger_mock::{Endpoint, Fault, FaultKind, RetryAfter, Rotation};
use http::StatusCode;

use crate::{
    browser::Browser,
    site::{App, MINUTE, SECOND, TOKEN_LIFE},
    twitch::{ADA, GRACE},
};

/// The routes for programs and for people.
async fn ask_all_ways(app: &App, browser: &mut Browser, lives: bool, during: &str) {
    for path in ["/auth/session", "/auth/check"] {
        let answer = browser.fetches(app, path).await;
        answer.assert_sets_no_cookie();
        if lives {
            assert!(answer.status.is_success(), "{during}, {path}: the token lives: {answer:?}");
        } else {
            answer.assert_error(StatusCode::SERVICE_UNAVAILABLE, "provider_unavailable");
            answer.assert_passing_failure();
        }
    }
    let page = browser.opens(app, "/auth/devices").await;
    page.assert_sets_no_cookie();
    page.assert_page(StatusCode::OK, "Your devices");
    let page = browser.opens(app, "/auth/sign-in").await;
    page.assert_sets_no_cookie();
    if !lives {
        page.assert_passing_failure();
    }
}

/// TRANSIENT: a session is served while its token lives, and then gets 503 with a time to come
/// back. No cookie is cleared, and after the outage everybody continues with the same cookie.
#[tokio::test(start_paused = true)]
async fn an_outage_of_four_hours_clears_no_cookie() {
    let app = App::start().await;
    app.twitch.mock().settings_mut().rotation = Rotation::Rotates;
    let mut browsers = Vec::new();
    for n in 0..8 {
        let signed_in_at = app.now();
        let browser = app.signed_in(if n % 2 == 0 { ADA } else { GRACE }).await;
        browsers.push((browser.clone(), browser, signed_in_at));
        app.pass(28 * MINUTE);
    }
    let wait = Some(RetryAfter::Seconds(20));
    let kinds = [
        FaultKind::status(500),
        FaultKind::status(502),
        FaultKind::status(503),
        FaultKind::Status { status: 503, body: String::new(), retry_after: wait },
        FaultKind::CloseBefore,
        FaultKind::CloseAfter,
        FaultKind::too_many_requests(None),
        FaultKind::too_many_requests(wait),
    ];
    for kind in kinds {
        app.twitch.mend();
        for endpoint in [Endpoint::Token, Endpoint::Validate] {
            app.twitch.mock().add_fault(Fault::always(endpoint, kind.clone()));
        }
        for _ in 0..3 {
            for (browser, _, signed_in_at) in &mut browsers {
                let lives = app.now().since(*signed_in_at) < TOKEN_LIFE;
                ask_all_ways(&app, browser, lives, &format!("{kind:?}")).await;
            }
            app.pass(10 * MINUTE);
        }
    }
    let (last, _, _) = browsers.last_mut().unwrap();
    ask_all_ways(&app, last, false, "at the end").await;

    app.twitch.mend();
    let back = app.now();
    for (browser, before, _) in &mut browsers {
        assert_eq!(browser.cookie("__Host-claviger"), before.cookie("__Host-claviger"), "TRANSIENT");
        while !browser.is_signed_in(&app).await {
            app.pass(SECOND);
            assert!(app.now().since(back) <= MINUTE, "LIVE");
        }
        assert_eq!(app.end_reason(browser.session(&app)).await, None, "TRANSIENT");
    }
}
