//! `GET /auth/login`.

use claviger_core::policy::limits;
use http::StatusCode;

use crate::{
    browser::{Browser, From},
    site::{App, MINUTE},
    twitch::ADA,
};

const PREFIX: &str = "__Host-claviger-login-";

#[tokio::test(start_paused = true)]
async fn a_sign_in_sets_one_cookie_and_leads_to_the_provider() {
    let app = App::start().await;
    let answer = Browser::new().follows(&app, "/auth/login?return_to=/inbox", From::ThisSite).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    let location = answer.location();
    assert!(location.starts_with("http://mock.test/oauth2/authorize?"), "{location}");
    for part in ["response_type=code", "redirect_uri=https%3A%2F%2Fapp.example%2Fauth%2Fcallback"] {
        assert!(location.contains(part), "{part} is missing in {location}");
    }
    assert!(!location.contains("force_verify=true"), "{location}");
    let cookies = answer.set_cookies();
    let (name, rest) = cookies[0].split_once('=').unwrap();
    let (value, attributes) = rest.split_once(';').unwrap();
    assert_eq!(cookies.len(), 1);
    assert_eq!(name.len(), PREFIX.len() + 10, "{name}");
    assert!(name.starts_with(PREFIX) && !location.contains(value), "{location}");
    assert_eq!(attributes, " HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=600");
}

#[tokio::test(start_paused = true)]
async fn another_account_can_be_asked_for() {
    let app = App::start().await;
    for (query, asks_again) in [("switch=true", true), ("switch=false", false), ("switch=", false)] {
        let answer = Browser::new().opens(&app, &format!("/auth/login?{query}")).await;
        assert_eq!(answer.location().contains("force_verify=true"), asks_again, "{query}");
    }
}

#[tokio::test(start_paused = true)]
async fn plain_http_has_cookies_whose_names_say_so() {
    let app = App::with(|setup| {
        setup.site.insecure = true;
        setup.site.origin = "http://localhost:8080".to_owned();
    })
    .await;
    let mut browser = Browser::new();
    let callback = browser.reaches_provider(&app, ADA, "/auth/login").await;
    assert!(browser.cookie_names()[0].starts_with("claviger-insecure-login-"));
    let answer = browser.follows(&app, &callback, From::Elsewhere).await;
    answer.assert_leads_to("/");
    let value = answer.cookie_value("claviger-insecure").to_owned();
    let line = format!("claviger-insecure={value}; HttpOnly; SameSite=Lax; Path=/; Max-Age=2592000");
    assert!(answer.set_cookies().contains(&line.as_str()), "{answer:?}");
    assert!(browser.is_signed_in(&app).await);
}

#[tokio::test(start_paused = true)]
async fn the_browser_comes_back_to_where_it_wanted_to_go() {
    let app = App::start().await;
    let table = [
        ("/auth/login", "/"),
        ("/auth/login?return_to=", "/"),
        ("/auth/login?return_to=/inbox", "/inbox"),
        ("/auth/login?return_to=%2Fa%3Fb%3Dc%26d%3De%23f", "/a?b=c&d=e#f"),
        ("/auth/login?return_to=/a%252F%252Fb", "/a%2F%2Fb"),
    ];
    for (login, target) in table {
        let mut browser = Browser::new();
        let callback = browser.reaches_provider(&app, ADA, login).await;
        browser.follows(&app, &callback, From::Elsewhere).await.assert_leads_to(target);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_led_to_another_site() {
    let app = App::start().await;
    let long = format!("/{}", "a".repeat(limits::RETURN_TO_BYTES));
    for hostile in [
        "//evil.example",
        "/%5Cevil.example",
        "%5Cevil.example",
        "https:evil.example",
        "https://evil.example",
        "javascript:alert(1)",
        "/%09/evil.example",
        "/%0D%0ALocation:%20https://evil.example",
        "/.//evil.example",
        "/%252e//evil.example",
        "/a/..//evil.example",
        "user@evil.example",
        "%2F%2Fevil.example",
        "/%C3%A4",
        "/%FF",
        long.as_str(),
    ] {
        let path = format!("/auth/login?return_to={hostile}");
        let answer = Browser::new().opens(&app, &path).await;
        answer.assert_page(StatusCode::BAD_REQUEST, "This address is not right");
        assert!(!answer.body.contains("evil"), "{hostile}");
        answer.assert_sets_no_cookie();
        Browser::new().fetches(&app, &path).await.assert_error(StatusCode::BAD_REQUEST, "bad_return_to");
    }
}

#[tokio::test(start_paused = true)]
async fn a_parameter_that_comes_twice_is_no_choice() {
    let app = App::start().await;
    for query in ["return_to=/a&return_to=/a", "return_to=/a&return%5Fto=/b", "switch=true&switch=false"] {
        let answer = Browser::new().opens(&app, &format!("/auth/login?{query}")).await;
        answer.assert_page(StatusCode::BAD_REQUEST, "may come only once");
        answer.assert_sets_no_cookie();
    }
}

#[tokio::test(start_paused = true)]
async fn the_sixth_sign_in_makes_the_oldest_give_way() {
    let app = App::start().await;
    let mut browser = Browser::new();
    browser.plant("theme", "dark");
    let mut callbacks = Vec::new();
    for _ in 0..8 {
        callbacks.push(browser.reaches_provider(&app, ADA, "/auth/login").await);
        app.pass(MINUTE);
    }
    let held = browser.cookie_names().iter().filter(|name| name.starts_with(PREFIX)).count();
    assert_eq!((held, browser.cookie_names().len()), (limits::LOGINS_PER_BROWSER, 6));
    for (at, callback) in callbacks.iter().enumerate() {
        let answer = browser.clone().follows(&app, callback, From::Elsewhere).await;
        let expected = if at < 3 { StatusCode::BAD_REQUEST } else { StatusCode::SEE_OTHER };
        assert_eq!(answer.status, expected, "sign-in {at}");
    }
}

#[tokio::test(start_paused = true)]
async fn tabs_do_not_disturb_each_other() {
    let app = App::start().await;
    let mut browser = Browser::new();
    let first = browser.reaches_provider(&app, ADA, "/auth/login?return_to=/first").await;
    let second = browser.reaches_provider(&app, ADA, "/auth/login?return_to=/second").await;
    browser.follows(&app, &second, From::Elsewhere).await.assert_leads_to("/second");
    browser.follows(&app, &first, From::Elsewhere).await.assert_leads_to("/first");
    assert!(browser.is_signed_in(&app).await);
    assert_eq!(browser.cookie_names(), ["__Host-claviger"], "all sign-ins are finished");
}

#[tokio::test(start_paused = true)]
async fn a_state_of_one_tab_does_not_open_the_sign_in_of_another() {
    let app = App::start().await;
    let mut browser = Browser::new();
    let first = browser.reaches_provider(&app, ADA, "/auth/login").await;
    let second = browser.reaches_provider(&app, ADA, "/auth/login").await;
    let [first_cookie, second_cookie] = [0, 1].map(|at| browser.cookie_names()[at].to_owned());
    let value = browser.cookie(&first_cookie).unwrap().to_owned();
    browser.plant(&second_cookie, &value);
    let answer = browser.follows(&app, &second, From::Elsewhere).await;
    answer.assert_page(StatusCode::BAD_REQUEST, "no longer open");
    browser.follows(&app, &first, From::Elsewhere).await.assert_leads_to("/");
}
