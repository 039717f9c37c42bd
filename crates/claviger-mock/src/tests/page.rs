//! The page at `/`, used by its forms.

use super::{ADA, Bench, Got, NOW};
use crate::{DEMO_CLIENT_ID, Endpoint, Rotation};

/// Sends a form of the page, and returns the page that the browser is led to.
fn press(bench: &mut Bench, form: &[(&str, &str)]) -> Got {
    let got = bench.post("/mock/page", form);
    assert_eq!(got.status, 303, "{}", got.body);
    assert!(got.header("location").unwrap().starts_with("/#"));
    bench.get("/")
}

#[test]
fn every_button_about_a_user_does_what_it_says() {
    let mut bench = Bench::new();
    let (access, _) = bench.sign_in("");
    let table = [
        ("expire", "1 access tokens of Ada_Builds are expired."),
        ("kill-tokens", "1 tokens of Ada_Builds are dead."),
        ("disconnect", "Ada_Builds is disconnected from 1 apps."),
        ("delete-user", "The account of Ada_Builds is deleted."),
    ];
    for (order, words) in table {
        let page = press(&mut bench, &[("do", order), ("user", ADA)]);
        assert!(page.body.contains(words), "{order}: {}", page.body);
    }
    assert!(!bench.is_live(&access) && !bench.mock.is_connected(ADA, DEMO_CLIENT_ID));
    assert!(bench.mock.users().all(|user| user.id != ADA));
}

#[test]
fn a_user_is_added_renamed_and_suspended() {
    let mut bench = Bench::new();
    press(&mut bench, &[("do", "add-user"), ("id", "42"), ("login", "zoe"), ("display_name", "")]);
    press(&mut bench, &[("do", "rename"), ("user", "42"), ("login", "zoe2"), ("display_name", "Zoë <b>")]);
    let page = press(&mut bench, &[("do", "suspend"), ("user", "42"), ("suspended", "true")]);
    assert!(page.body.contains("Zoë &#60;b&#62; is suspended"), "{}", page.body);
    let zoe = bench.mock.users().find(|user| user.id == "42").unwrap();
    assert!((zoe.login == "zoe2") & zoe.suspended);
}

#[test]
fn a_fault_is_put_together_from_the_form_and_removed_again() {
    let mut bench = Bench::new();
    let form = [
        ("do", "add-fault"),
        ("endpoint", "validate"),
        ("what", "status"),
        ("status", "302"),
        ("set", "expires_in = 0\nlogin=plain words"),
        ("headers", "Location: https://elsewhere.example/\nCache-Control:"),
        ("encoding", ""),
        ("delay_ms", "20"),
        ("calls", "1"),
        ("skip", ""),
    ];
    let page = press(&mut bench, &form);
    assert!(page.body.contains("The fault waits"), "{}", page.body);
    assert_eq!(bench.mock.faults().count(), 3, "what happens, a change and a delay");
    let got = bench.validate("any");
    assert_eq!((got.status, got.header("location")), (302, Some("https://elsewhere.example/")));
    assert_eq!((got.reply.delay.as_millis(), bench.mock.faults().count()), (20, 0));

    press(&mut bench, &[("do", "ready-fault"), ("fault", "token:503:times=3")]);
    press(&mut bench, &[("do", "remove-fault"), ("index", "0")]);
    assert_eq!(bench.mock.faults().count(), 0);
}

#[test]
fn every_ready_fault_of_the_page_can_be_added() {
    let mut bench = Bench::new();
    let page = bench.get("/").body;
    let ready: Vec<&str> =
        page.split(r#"name="fault" value=""#).skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(ready.len() >= 8, "{ready:?}");
    for fault in &ready {
        press(&mut bench, &[("do", "ready-fault"), ("fault", fault)]);
    }
    assert_eq!(bench.mock.faults().count(), ready.len());
}

#[test]
fn the_form_for_settings_keeps_what_was_not_touched() {
    let mut bench = Bench::new();
    bench.mock.settings_mut().eventsub.retry_after_ms = vec![1, 2];
    let page = bench.get("/").body;
    let form = settings_form(&page);
    let before = bench.mock.settings().clone();
    let send = |bench: &mut Bench, form: &[(String, String)]| {
        let form: Vec<(&str, &str)> =
            form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        press(bench, &form)
    };
    send(&mut bench, &form);
    assert_eq!(bench.mock.settings(), &before);
    let mut changed = form.clone();
    for (name, value) in &mut changed {
        match name.as_str() {
            "rotation" => *value = "none".to_owned(),
            "live_token_limit" => *value = "refuses:3".to_owned(),
            _ => {}
        }
    }
    changed.push(("hold".to_owned(), "true".to_owned()));
    send(&mut bench, &changed);
    assert_eq!(bench.mock.settings().rotation, Rotation::None);
    assert!(bench.mock.settings().eventsub.hold);
    changed.retain(|(name, _)| name != "token_lag_ms");
    let form: Vec<(&str, &str)> =
        changed.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let refused = bench.post("/mock/page", &form);
    assert_eq!(refused.status, 400);
    assert!(refused.body.contains("role=\"alert\""));
}

/// What a browser would send for the form with the settings.
fn settings_form(page: &str) -> Vec<(String, String)> {
    let form = page.split(r#"name="do" value="settings""#).nth(1).unwrap().split("</form>").next().unwrap();
    let attribute = |tag: &str, name: &str| {
        tag.split(&format!(" {name}=\"")).nth(1).and_then(|rest| rest.split('"').next()).map(str::to_owned)
    };
    let mut fields = vec![("do".to_owned(), "settings".to_owned())];
    for tag in form.split('<') {
        let Some(name) = attribute(tag, "name") else {
            continue;
        };
        if tag.starts_with("select") {
            let options = form.split(tag).nth(1).unwrap().split("</select>").next().unwrap();
            let chosen = options.split('<').find(|tag| tag.contains(" selected"));
            fields.push((name, chosen.and_then(|tag| attribute(tag, "value")).unwrap_or_default()));
        } else if !tag.contains("checkbox") || tag.contains(" checked") {
            fields.push((name, attribute(tag, "value").unwrap_or_default()));
        }
    }
    fields
}

#[test]
fn requests_of_another_site_and_unknown_orders_change_nothing() {
    let mut bench = Bench::new();
    let form = super::encode(&[("do", "delete-user"), ("user", ADA)]);
    let headers = [("content-type", "application/x-www-form-urlencoded"), ("sec-fetch-site", "cross-site")];
    assert_eq!(bench.send("POST", "/mock/page", &headers, &form).status, 403);
    assert_eq!(bench.post("/mock/page", &[("do", "no such order")]).status, 400);
    assert!(bench.mock.users().any(|user| user.id == ADA));
}

#[test]
fn the_words_of_an_order_are_shown_once_and_not_to_a_page_that_updates_itself() {
    let mut bench = Bench::new();
    bench.post("/mock/page", &[("do", "clear-log")]);
    let words = "The list of requests is cleared.";
    assert!(!bench.get("/?live").body.contains(words));
    assert!(bench.get("/").body.contains(words));
    assert!(!bench.get("/").body.contains(words));
}

#[test]
fn the_list_of_requests_names_endpoint_answer_user_and_fault() {
    let mut bench = Bench::new();
    let (_, refresh) = bench.sign_in("");
    bench.mock.add_fault(crate::Fault::once(Endpoint::Token, crate::FaultKind::status(503)));
    bench.refresh(&refresh);
    let page = bench.get("/").body;
    let newest = page.split(r#"id="requests-items""#).nth(1).unwrap().split("</li>").next().unwrap();
    for part in ["POST token", "503", "refresh_token", "fault"] {
        assert!(newest.contains(part), "{part}: {newest}");
    }
    assert!(bench.mock.log().next_back().unwrap().at_ms == NOW);
}
