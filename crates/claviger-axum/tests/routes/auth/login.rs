//! `GET /auth/login`.

use claviger_core::limits;
use http::{Method, StatusCode};

use crate::{
    browser::{Browser, From},
    site::{App, MINUTE},
    twitch::ADA,
};

const PREFIX: &str = "__Host-claviger-login-";

#[tokio::test(start_paused = true)]
async fn login_sets_one_cookie_and_redirects_to_the_provider() {
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
async fn a_page_of_another_site_leads_to_the_sign_in_page_first() {
    let app = App::start().await;
    let table = [
        ("/auth/login", "/auth/sign-in?return_to=%2F"),
        ("/auth/login?return_to=/inbox", "/auth/sign-in?return_to=%2Finbox"),
        ("/auth/login?return_to=/a&switch=true", "/auth/sign-in?return_to=%2Fa&switch=true"),
    ];
    for (login, page) in table {
        for from in [From::Elsewhere, From::Sibling] {
            let mut browser = Browser::new();
            let answer = browser.follows(&app, login, from).await;
            answer.assert_leads_to(page);
            answer.assert_sets_no_cookie();
            let shown = browser.follows(&app, page, from).await;
            let link = shown.body.split_once("href=\"/auth/login").unwrap().1.split('"').next().unwrap();
            let link = format!("/auth/login{}", link.replace("&#38;", "&"));
            assert_eq!(link.contains("switch=true"), login.contains("switch=true"), "{link}");
            let begun = browser.follows(&app, &link, From::ThisSite).await;
            assert!(begun.location().starts_with("http://mock.test/"), "{begun:?}");
        }
        for from in [From::User, From::ThisSite] {
            let begun = Browser::new().follows(&app, login, from).await;
            assert!(begun.location().starts_with("http://mock.test/"), "{begun:?}");
        }
    }
    let image = Browser::new().bare(&app, Method::GET, "/auth/login");
    let image = image.header("sec-fetch-site", "cross-site").header("sec-fetch-mode", "no-cors");
    Browser::new().send(&app, image).await.assert_error(StatusCode::FORBIDDEN, "cross_site");
    let old = Browser::new().bare(&app, Method::GET, "/auth/login").header("accept", "text/html");
    let answer = Browser::new().send(&app, old.header("referer", "https://evil.example/")).await;
    answer.assert_leads_to("/auth/sign-in?return_to=%2F");
    let mut signed_in = app.signed_in(ADA).await;
    let answer = signed_in.follows(&app, "/auth/login?return_to=/inbox", From::Elsewhere).await;
    let page = answer.location().to_owned();
    signed_in.follows(&app, &page, From::Elsewhere).await.assert_leads_to("/inbox");
}

#[tokio::test(start_paused = true)]
async fn switch_lets_the_user_choose_an_account() {
    let app = App::start().await;
    for (query, asks_again) in [("switch=true", true), ("switch=false", false), ("switch=", false)] {
        let answer = Browser::new().opens(&app, &format!("/auth/login?{query}")).await;
        assert_eq!(answer.location().contains("force_verify=true"), asks_again, "{query}");
    }
}

#[tokio::test(start_paused = true)]
async fn plain_http_uses_insecure_cookie_names() {
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
async fn return_to_is_where_the_sign_in_ends() {
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
async fn return_to_never_leaves_this_site() {
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
async fn a_repeated_parameter_is_refused() {
    let app = App::start().await;
    for query in ["return_to=/a&return_to=/a", "return_to=/a&return%5Fto=/b", "switch=true&switch=false"] {
        let answer = Browser::new().opens(&app, &format!("/auth/login?{query}")).await;
        answer.assert_page(StatusCode::BAD_REQUEST, "may come only once");
        answer.assert_sets_no_cookie();
    }
}

#[tokio::test(start_paused = true)]
async fn the_sixth_sign_in_drops_the_oldest() {
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
        let expected = if at < 3 { "/auth/failed?error=sign_in_stale" } else { "/" };
        assert_eq!(answer.location(), expected, "sign-in {at}");
    }
}

#[tokio::test(start_paused = true)]
async fn sign_ins_in_two_tabs_both_succeed() {
    let app = App::start().await;
    let mut browser = Browser::new();
    let first = browser.reaches_provider(&app, ADA, "/auth/login?return_to=/first").await;
    let second = browser.reaches_provider(&app, ADA, "/auth/login?return_to=/second").await;
    browser.follows(&app, &second, From::Elsewhere).await.assert_leads_to("/second");
    browser.follows(&app, &first, From::Elsewhere).await.assert_leads_to("/first");
    assert!(browser.is_signed_in(&app).await);
    assert_eq!(browser.lasting_cookie_names(), ["__Host-claviger"]);
}

#[tokio::test(start_paused = true)]
async fn a_state_does_not_open_another_tabs_sign_in() {
    let app = App::start().await;
    let mut browser = Browser::new();
    let first = browser.reaches_provider(&app, ADA, "/auth/login").await;
    let second = browser.reaches_provider(&app, ADA, "/auth/login").await;
    let [first_cookie, second_cookie] = [0, 1].map(|at| browser.cookie_names()[at].to_owned());
    let value = browser.cookie(&first_cookie).unwrap().to_owned();
    browser.plant(&second_cookie, &value);
    let answer = browser.follows(&app, &second, From::Elsewhere).await;
    let page = browser.reads_failure(&app, &answer).await;
    page.assert_page(StatusCode::BAD_REQUEST, "no longer open");
    browser.follows(&app, &first, From::Elsewhere).await.assert_leads_to("/");
}
