//! `GET /auth/devices`, `POST /auth/devices/{id}/end`, `POST /auth/devices/end-others`.

use claviger_core::{AttemptId, Claim, EndReason, Fingerprint, limits};
use claviger_mock::{Endpoint, Fault, FaultKind, Rotation};
use claviger_store::{Applied, Store as _};
use http::{Method, StatusCode, header};

use crate::{
    browser::{Browser, From},
    site::{App, MINUTE, SECOND, TOKEN_LIFE},
    twitch::{ADA, GRACE, MALLORY},
};

const WINDOWS: &str =
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/140.0.0.0 Safari/537.36";
const IPHONE: &str =
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Mobile Safari/604.1";

async fn on(app: &App, user: &str, user_agent: &str) -> Browser {
    let mut browser = Browser::called(user_agent);
    browser.signs_in(app, user).await;
    browser
}

const LOST: &str = "The answer to the last renewal of its access was lost.";
const RENEW: &str = "Its access must be renewed";

/// Claims a device's row as a refresh does.
async fn claim(app: &App, browser: &Browser, change: impl FnOnce(&mut Claim)) {
    let row = app.store.load(browser.session(app)).await.unwrap().unwrap();
    let mut claim = Claim {
        attempt: AttemptId([7; 16]),
        taken_at: app.now(),
        lease_until: app.now().after(limits::CLAIM_LEASE),
        fingerprint: Fingerprint([7; 16]),
        replay: false,
        answer_lost: false,
    };
    change(&mut claim);
    assert_eq!(app.store.apply(&row.claim(claim).unwrap()).await.unwrap(), Applied::Done);
}

/// Returns the state of a device's tokens in the JSON list.
async fn token_state(app: &App, asking: &Browser, about: &Browser) -> String {
    let listed = asking.clone().fetches(app, "/auth/devices").await.json();
    let id = about.session(app).to_string();
    let device = listed["devices"].as_array().unwrap().iter().find(|device| device["id"] == id).unwrap();
    device["tokens"].as_str().unwrap().to_owned()
}

/// Three devices of Ada, a minute apart, and one of Grace.
async fn devices(app: &App) -> [Browser; 4] {
    let linux = app.signed_in(ADA).await;
    app.pass(MINUTE);
    let windows = on(app, ADA, WINDOWS).await;
    app.pass(MINUTE);
    let iphone = on(app, ADA, IPHONE).await;
    app.pass(MINUTE);
    [linux, windows, iphone, app.signed_in(GRACE).await]
}

fn end_path(app: &App, browser: &Browser) -> String {
    format!("/auth/devices/{}/end", browser.session(app))
}

#[tokio::test(start_paused = true)]
async fn the_list_says_which_device_this_is() {
    let app = App::start().await;
    let [mut linux, windows, iphone, _] = devices(&app).await;
    let answer = linux.fetches(&app, "/auth/devices").await;
    let row = |browser: &Browser, name, this_device, minute| {
        let at = format!("2027-01-15T08:0{minute}:00Z");
        serde_json::json!({
            "id": browser.session(&app).to_string(), "name": name, "this_device": this_device,
            "first_seen": at, "last_seen": at, "tokens": "in_order",
        })
    };
    let expected = serde_json::json!({ "devices": [
        row(&iphone, "Safari 18 on iPhone", false, 2),
        row(&windows, "Chrome 140 on Windows", false, 1),
        row(&linux, "Firefox 140 on Linux", true, 0),
    ]});
    assert_eq!((answer.status, answer.json()), (StatusCode::OK, expected));
}

#[tokio::test(start_paused = true)]
async fn the_page_shows_this_device_first() {
    let app = App::start().await;
    let [mut linux, windows, iphone, grace] = devices(&app).await;
    let answer = linux.opens(&app, "/auth/devices").await;
    answer.assert_page(StatusCode::OK, "ada_builds");
    let at = |words: &str| answer.body.find(words).unwrap_or_else(|| panic!("{words}: {}", answer.body));
    assert!(at("This device") < at("Firefox 140 on Linux"));
    assert!(at("Firefox 140 on Linux") < at("Other devices"));
    assert!(
        at("Other devices") < at("Safari 18 on iPhone")
            && at("Safari 18 on iPhone") < at("Chrome 140 on Windows")
    );
    assert!(at("action=\"/auth/logout\"") < at("Other devices"));
    for browser in [&windows, &iphone] {
        at(&format!("action=\"{}\"", end_path(&app, browser)));
    }
    at("action=\"/auth/devices/end-others\"");
    at("2 minutes ago");
    assert!(!answer.body.contains(&grace.session(&app).to_string()), "ISO");
    assert!(!answer.body.contains(&end_path(&app, &linux)), "this device has its own button");
    let alone = grace.clone().opens(&app, "/auth/devices").await;
    alone.assert_page(StatusCode::OK, "No other device is signed in.");
    assert!(!alone.body.contains("end-others"), "{}", alone.body);
}

#[tokio::test(start_paused = true)]
async fn names_are_escaped() {
    let app = App::start().await;
    for user_agent in ["\"><script>alert", "'onmouseover='alert", "<!--", "&lt;b&gt;", "</h3></li>", "Zoë"] {
        on(&app, MALLORY, user_agent).await;
    }
    let mut browser = app.signed_in(MALLORY).await;
    let answer = browser.opens(&app, "/auth/devices").await;
    answer.assert_page(StatusCode::OK, "&#60;/p&#62;&#60;script&#62;&#34;&#39;&#38;x=%0d");
    for raw in ["<script", "\"><s", "<!--", "'on", "&lt;"] {
        assert!(!answer.body.contains(raw), "{raw} in {}", answer.body);
    }
    let listed = browser.fetches(&app, "/auth/devices").await.json();
    assert_eq!(listed["devices"].as_array().unwrap().len(), 7);
}

#[tokio::test(start_paused = true)]
async fn the_page_holds_the_maximum_number_of_devices() {
    let app = App::start().await;
    for _ in 0..25 {
        on(&app, ADA, WINDOWS).await;
        app.pass(MINUTE);
    }
    let mut browser = app.signed_in(ADA).await;
    let answer = browser.opens(&app, "/auth/devices").await;
    assert_eq!(answer.body.matches("<button").count(), 21, "20 devices, and a button for all others");
}

#[tokio::test(start_paused = true)]
async fn one_device_can_be_signed_out() {
    let app = App::start().await;
    let [mut linux, windows, iphone, grace] = devices(&app).await;
    let answer = linux.submits(&app, &end_path(&app, &windows), From::ThisSite).await;
    answer.assert_leads_to("/auth/devices?signed_out=1");
    let page = linux.opens(&app, "/auth/devices?signed_out=1").await;
    page.assert_page(StatusCode::OK, "<title>1 device is signed out · Your devices</title>");
    page.assert_page(StatusCode::OK, "role=\"status\">1 device is signed out.</p>");
    answer.assert_sets_no_cookie();
    let reason = app.end_reason(windows.session(&app)).await;
    assert_eq!(reason, Some(EndReason::SignedOutFromAnotherDevice));
    let answer = linux.posts(&app, &end_path(&app, &iphone)).await;
    assert_eq!((answer.status, answer.json()), (StatusCode::OK, serde_json::json!({ "ended": 1 })));
    let answer = linux.posts(&app, &end_path(&app, &iphone)).await;
    assert_eq!(answer.json(), serde_json::json!({ "ended": 0 }), "safe to repeat");
    assert!(linux.is_signed_in(&app).await && grace.is_signed_in(&app).await, "BLAST");
    assert!(!windows.is_signed_in(&app).await && !iphone.is_signed_in(&app).await);
}

#[tokio::test(start_paused = true)]
async fn ending_the_own_device_signs_out() {
    let app = App::start().await;
    let [mut linux, mut windows, ..] = devices(&app).await;
    let path = end_path(&app, &linux);
    let answer = linux.submits(&app, &path, From::ThisSite).await;
    answer.assert_leads_to("/auth/sign-in?signed_out=true");
    assert!(linux.lasting_cookie_names().is_empty());
    let path = end_path(&app, &windows);
    let session = windows.session(&app);
    let answer = windows.posts(&app, &path).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert!(windows.lasting_cookie_names().is_empty());
    assert_eq!(app.end_reason(session).await, Some(EndReason::SignedOut));
}

#[tokio::test(start_paused = true)]
async fn another_users_device_is_not_found() {
    let app = App::start().await;
    let [mut linux, _, _, grace] = devices(&app).await;
    let path = end_path(&app, &grace);
    linux.posts(&app, &path).await.assert_error(StatusCode::NOT_FOUND, "no_such_device");
    let page = linux.submits(&app, &path, From::ThisSite).await;
    page.assert_page(StatusCode::NOT_FOUND, "No such device");
    assert!(grace.is_signed_in(&app).await, "BLAST");
}

#[tokio::test(start_paused = true)]
async fn a_bad_device_id_is_not_found() {
    let app = App::start().await;
    let mut browser = app.signed_in(ADA).await;
    let long = "a".repeat(4000);
    for id in [
        "x",
        "%00",
        "%FF%FE",
        "..",
        "%2E%2E",
        "a%2Fb",
        "end-others",
        "00000000-0000-0000-0000-000000000000",
        "-1",
        "%3Cscript%3E",
        &long,
    ] {
        let path = format!("/auth/devices/{id}/end");
        browser.posts(&app, &path).await.assert_error(StatusCode::NOT_FOUND, "no_such_device");
        let page = browser.submits(&app, &path, From::ThisSite).await;
        page.assert_page(StatusCode::NOT_FOUND, "No such device");
    }
}

#[tokio::test(start_paused = true)]
async fn all_other_devices_can_be_signed_out() {
    let app = App::start().await;
    let [mut linux, windows, iphone, grace] = devices(&app).await;
    let answer = linux.posts(&app, "/auth/devices/end-others").await;
    assert_eq!((answer.status, answer.json()), (StatusCode::OK, serde_json::json!({ "ended": 2 })));
    answer.assert_sets_no_cookie();
    let answer = linux.submits(&app, "/auth/devices/end-others", From::ThisSite).await;
    answer.assert_leads_to("/auth/devices?signed_out=0");
    assert!(linux.is_signed_in(&app).await && grace.is_signed_in(&app).await, "OTHERS");
    assert!(!windows.is_signed_in(&app).await && !iphone.is_signed_in(&app).await, "OTHERS");
}

#[tokio::test(start_paused = true)]
async fn without_a_session_there_is_no_device_list() {
    let app = App::start().await;
    let somebody = app.signed_in(ADA).await;
    let mut nobody = Browser::new();
    let answer = nobody.opens(&app, "/auth/devices").await;
    answer.assert_leads_to("/auth/sign-in?return_to=%2Fauth%2Fdevices");
    nobody.fetches(&app, "/auth/devices").await.assert_error(StatusCode::UNAUTHORIZED, "sign_in_required");
    for path in [end_path(&app, &somebody), "/auth/devices/end-others".to_owned()] {
        nobody.posts(&app, &path).await.assert_error(StatusCode::UNAUTHORIZED, "sign_in_required");
        let page = nobody.submits(&app, &path, From::ThisSite).await;
        page.assert_page(StatusCode::UNAUTHORIZED, "You are not signed in.");
        assert!(!page.headers.contains_key(header::LOCATION));
    }
    assert!(somebody.is_signed_in(&app).await);
}

#[tokio::test(start_paused = true)]
async fn another_site_cannot_end_sessions() {
    let app = App::start().await;
    let [mut linux, windows, iphone, _] = devices(&app).await;
    for path in [end_path(&app, &windows), end_path(&app, &linux), "/auth/devices/end-others".to_owned()] {
        for from in [From::Elsewhere, From::Sibling] {
            let answer = linux.submits(&app, &path, from).await;
            answer.assert_page(StatusCode::FORBIDDEN, "Another site tried to do this");
        }
        let answer = linux.opens(&app, &path).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    }
    for browser in [linux, windows, iphone] {
        assert!(browser.is_signed_in(&app).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_failure_ends_no_device() {
    let app = App::start().await;
    let [mut linux, windows, ..] = devices(&app).await;
    assert!(linux.is_signed_in(&app).await, "from now on the session is known without the store");
    app.store_fails(true);
    linux.fetches(&app, "/auth/devices").await.assert_passing_failure();
    linux.opens(&app, "/auth/devices").await.assert_passing_failure();
    for path in [end_path(&app, &windows), end_path(&app, &linux), "/auth/devices/end-others".to_owned()] {
        linux.posts(&app, &path).await.assert_passing_failure();
        let page = linux.submits(&app, &path, From::ThisSite).await;
        page.assert_passing_failure();
        assert!(!page.body.contains("href=\"\""), "this address can only be posted to: {}", page.body);
    }
    app.store_fails(false);
    assert!(linux.is_signed_in(&app).await && windows.is_signed_in(&app).await, "TRANSIENT");
}

/// What a user does with the own devices needs the row alone.
#[tokio::test(start_paused = true)]
async fn devices_are_listed_and_ended_while_the_provider_is_away() {
    let app = App::start().await;
    let [mut linux, windows, iphone, grace] = devices(&app).await;
    app.provider_fails_when_needed();
    app.twitch.breaks(Endpoint::Validate, 503);
    linux.fetches(&app, "/auth/session").await.assert_passing_failure();
    let page = linux.opens(&app, "/auth/devices").await;
    page.assert_page(StatusCode::OK, "Safari 18 on iPhone");
    let listed = linux.fetches(&app, "/auth/devices").await.json();
    assert_eq!(listed["devices"].as_array().unwrap().len(), 3);
    let answer = linux.posts(&app, &end_path(&app, &windows)).await;
    assert_eq!((answer.status, answer.json()), (StatusCode::OK, serde_json::json!({ "ended": 1 })));
    let answer = linux.submits(&app, "/auth/devices/end-others", From::ThisSite).await;
    answer.assert_leads_to("/auth/devices?signed_out=1");
    for ended in [&windows, &iphone] {
        let reason = app.end_reason(ended.session(&app)).await;
        assert_eq!(reason, Some(EndReason::SignedOutFromAnotherDevice));
    }
    assert_eq!(app.end_reason(grace.session(&app)).await, None, "BLAST");
    let answer = linux.submits(&app, &end_path(&app, &linux), From::ThisSite).await;
    answer.assert_leads_to("/auth/sign-in?signed_out=true");
}

/// A sealed cookie of an ended session, or of one that never was, owns nothing.
#[tokio::test(start_paused = true)]
async fn the_cookie_alone_opens_no_device_list() {
    let app = App::start().await;
    let [linux, windows, ..] = devices(&app).await;
    let elsewhere = App::start().await;
    for (app, browser) in [(&app, &linux), (&elsewhere, &windows)] {
        let mut browser = browser.clone();
        let session = browser.session(app);
        if app.store.load(session).await.unwrap().is_some() {
            app.end(session, EndReason::SignedOut).await;
        }
        let answer = browser.fetches(app, "/auth/devices").await;
        answer.assert_error(StatusCode::UNAUTHORIZED, "sign_in_required");
        let answer = browser.posts(app, "/auth/devices/end-others").await;
        answer.assert_error(StatusCode::UNAUTHORIZED, "sign_in_required");
    }
}

#[tokio::test(start_paused = true)]
async fn the_device_limit_ends_the_one_used_least_recently() {
    let app = App::with(|setup| setup.settings.devices_per_user = 2).await;
    let [linux, windows, iphone, _] = devices(&app).await;
    assert_eq!(app.end_reason(linux.session(&app)).await, Some(EndReason::DeviceLimit));
    assert!(windows.is_signed_in(&app).await && iphone.is_signed_in(&app).await);
}

/// Covers this device and another one: a lost answer recovers by itself, a spent token needs a
/// sign-in.
#[tokio::test(start_paused = true)]
async fn the_list_shows_a_lost_answer_and_a_needed_renewal() {
    for own in [true, false] {
        let app = App::start().await;
        let [linux, windows, ..] = devices(&app).await;
        let (asking, about, untouched) =
            if own { (&linux, &linux, &windows) } else { (&linux, &windows, &linux) };
        let page = asking.clone().opens(&app, "/auth/devices").await;
        assert!(!page.body.contains(LOST) && !page.body.contains(RENEW), "{}", page.body);
        claim(&app, about, |_| {}).await;
        assert_eq!(token_state(&app, asking, about).await, "refreshing");
        let page = asking.clone().opens(&app, "/auth/devices").await;
        assert!(!page.body.contains(LOST) && !page.body.contains(RENEW), "nothing is wrong: {}", page.body);

        claim(&app, about, |claim| claim.answer_lost = true).await;
        assert_eq!(token_state(&app, asking, about).await, "answer_lost");
        let page = asking.clone().opens(&app, "/auth/devices").await;
        page.assert_page(StatusCode::OK, LOST);
        assert!(!page.body.contains(RENEW), "{}", page.body);

        claim(&app, about, |claim| (claim.answer_lost, claim.replay) = (true, true)).await;
        assert_eq!(token_state(&app, asking, about).await, "renewal_needed");
        let page = asking.clone().opens(&app, "/auth/devices").await;
        page.assert_page(StatusCode::OK, RENEW);
        assert!(!page.body.contains(LOST), "{}", page.body);
        assert_eq!(page.body.contains("/auth/login?return_to=%2Fauth%2Fdevices"), own, "{}", page.body);
        assert_eq!(token_state(&app, asking, untouched).await, "in_order", "BLAST");
    }
}

#[tokio::test(start_paused = true)]
async fn an_element_of_a_page_learns_nothing() {
    let app = App::start().await;
    let mut browser = app.signed_in(ADA).await;
    for path in ["/auth/devices", "/auth/session"] {
        let image = browser.bare(&app, Method::GET, path).header("sec-fetch-mode", "no-cors");
        let answer = browser.send(&app, image.header("sec-fetch-dest", "image")).await;
        answer.assert_error(StatusCode::UNAUTHORIZED, "sign_in_required");
    }
}

/// A refresh loses its answer, then its replay does too, while the old access token still works.
/// The link on the page renews the tokens of the same session.
#[tokio::test(start_paused = true)]
async fn the_link_on_the_page_renews_this_device() {
    let app = App::start().await;
    app.twitch.mock().settings_mut().rotation = Rotation::Rotates;
    let mut browser = app.signed_in(ADA).await;
    let session = browser.session(&app);
    app.pass(TOKEN_LIFE - 28 * SECOND);
    for tokens in ["answer_lost", "renewal_needed"] {
        app.twitch.mock().add_fault(Fault::once(Endpoint::Token, FaultKind::CloseAfter));
        browser.fetches(&app, "/auth/session").await;
        assert_eq!(token_state(&app, &browser, &browser).await, tokens);
        app.pass(6 * SECOND);
    }
    let page = browser.opens(&app, "/auth/devices").await;
    page.assert_page(StatusCode::OK, RENEW);
    let callback = browser.reaches_provider(&app, ADA, "/auth/login?return_to=%2Fauth%2Fdevices").await;
    let mut answer = browser.follows(&app, &callback, From::Elsewhere).await;
    if let Some(next) = answer.goes_on_to() {
        answer = browser.follows(&app, &next, From::ThisSite).await;
    }
    answer.assert_leads_to("/auth/devices");
    assert_eq!(browser.session(&app), session, "the same session");
    assert_eq!(token_state(&app, &browser, &browser).await, "in_order");
    assert!(!browser.opens(&app, "/auth/devices").await.body.contains(RENEW));
}
