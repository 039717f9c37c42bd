//! The provider's part of the configuration.

use claviger_mock::{Change, Encoding, Endpoint, Fault, FaultKind};
use http::{StatusCode, header};

use crate::world::{ADA, World, cookies_of, echo, location};

#[tokio::test]
async fn a_mock_that_names_itself_in_the_callback_is_the_issuer() {
    let world = World::echoing().await;
    world.mock.with(|mock| mock.settings_mut().callback_iss = true);
    let cookie = world.sign_in(ADA).await;
    let answer = world.get("/app").header(header::COOKIE, cookie).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_callback_of_another_issuer_signs_nobody_in() {
    let world = World::echoing().await;
    world.mock.with(|mock| {
        mock.settings_mut().callback_iss = true;
        mock.settings_mut().authorize_at_once_as = Some(ADA.to_owned());
    });
    let begun = world.get("/auth/login").send().await.unwrap();
    // The mock takes the name by which it is called for its own.
    let elsewhere = world.client.get(location(&begun)).header(header::HOST, "other.example");
    let callback = location(&elsewhere.send().await.unwrap());
    assert!(callback.contains("iss=http%3A%2F%2Fother.example%2Foauth2"), "{callback}");
    let login = cookies_of(begun.headers());
    let refused = world.client.get(callback).header(header::COOKIE, login).send().await.unwrap();
    assert!(refused.status().is_client_error(), "{}", refused.status());
    assert!(!cookies_of(refused.headers()).contains("claviger-insecure="));
    assert_eq!(world.mock.with(|mock| mock.calls(Endpoint::Token)), 0);
}

#[tokio::test]
async fn the_configuration_decides_about_a_replay() {
    let never = "provider.rotation = \"one_time\"\nprovider.replay_window = \"0s\"";
    for (settings, expected, refreshes) in [("", StatusCode::OK, 2), (never, StatusCode::UNAUTHORIZED, 1)] {
        let world = World::new(echo(), settings).await;
        world.mock.with(|mock| mock.settings_mut().rotation = claviger_mock::Rotation::Rotates);
        let cookie = world.sign_in(ADA).await;
        world.mock.with(|mock| {
            mock.expire_access_tokens(ADA);
            mock.add_fault(Fault::once(Endpoint::Token, FaultKind::CloseAfter).grant_type("refresh_token"));
        });
        let call = || world.get("/api/twitch/users").header(header::COOKIE, &cookie).send();
        let _lost = call().await.unwrap();
        assert_eq!(call().await.unwrap().status(), expected, "{settings}");
        assert_eq!(world.mock.with(|mock| mock.token_calls("refresh_token")), refreshes, "{settings}");
    }
}

#[tokio::test]
async fn compressed_answers_of_the_provider_are_read() {
    for encoding in [Encoding::Gzip, Encoding::Deflate, Encoding::RawDeflate] {
        let world = World::echoing().await;
        let kind = FaultKind::Change(Change::encoding(encoding));
        for endpoint in [Endpoint::Token, Endpoint::Validate] {
            world.mock.with(|mock| mock.add_fault(Fault::always(endpoint, kind.clone())));
        }
        let cookie = world.sign_in(ADA).await;
        world.mock.with(|mock| mock.expire_access_tokens(ADA));
        let answer = world.get("/api/twitch/users").header(header::COOKIE, cookie).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{encoding:?}");
        assert_eq!(world.mock.with(|mock| mock.token_calls("refresh_token")), 1, "{encoding:?}");
    }
}
