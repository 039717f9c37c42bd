//! Secrets leave the process only in Set-Cookie (SECRET).

use std::{
    io,
    sync::{Arc, Mutex},
};

use http::StatusCode;
use tracing_subscriber::fmt::MakeWriter;

use crate::{
    browser::{Browser, From},
    site::{App, TOKEN_LIFE},
    twitch::ADA,
};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Captures the log of this work at every level. The test must run on one thread.
pub(crate) async fn captured<T>(work: impl Future<Output = T>) -> (String, T) {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let done = work.await;
    drop(guard);
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    (text, done)
}

#[tokio::test(start_paused = true)]
async fn no_secret_is_logged_or_sent() {
    let app = App::with(|setup| setup.settings.carry_access_token = true).await;
    let story = async {
        let (mut browser, mut said, mut cookies) = (Browser::new(), String::new(), Vec::new());
        for _ in 0..2 {
            let callback = browser.reaches_provider(&app, ADA, "/auth/login").await;
            cookies
                .extend(browser.cookie_names().iter().map(|name| browser.cookie(name).unwrap().to_owned()));
            let answers = [
                browser.follows(&app, &format!("{callback}&code=twice"), From::Elsewhere).await,
                browser.follows(&app, &callback, From::Elsewhere).await,
                browser.follows(&app, &callback, From::Elsewhere).await,
            ];
            cookies
                .extend(browser.cookie_names().iter().map(|name| browser.cookie(name).unwrap().to_owned()));
            answers.iter().for_each(|answer| said.push_str(&answer.body));
        }
        app.pass(TOKEN_LIFE);
        for path in ["/auth/session", "/auth/devices", "/auth/check"] {
            let answer = browser.fetches(&app, path).await;
            assert_eq!(answer.status, StatusCode::OK, "{path}");
            said.push_str(&format!("{answer:?}"));
        }
        said.push_str(&browser.opens(&app, "/auth/devices").await.body);
        app.twitch.mock().kill_tokens(ADA);
        app.store_fails(true);
        said.push_str(&browser.opens(&app, "/auth/devices").await.body);
        app.store_fails(false);
        browser.posts(&app, "/auth/logout").await;
        (said, cookies)
    };
    let (log, (said, cookies)) = captured(story).await;
    assert!(log.contains("signed in"), "the log was read: {log}");
    let secrets = [app.twitch.secrets(), cookies].concat();
    assert!(secrets.len() > 10, "codes, tokens and cookies were seen");
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        assert!(!log.contains(secret.as_str()), "SECRET: {secret} is logged");
        assert!(!said.contains(secret.as_str()), "SECRET: {secret} is shown");
    }
}
