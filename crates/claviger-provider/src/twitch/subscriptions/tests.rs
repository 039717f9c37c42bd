use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::{answer::Unanswered, twitch::tests::twitch};

const NOW: Timestamp = Timestamp::from_millis(1_795_132_800_000);
const CALLBACK: &str = "https://app.example/hook?a=b";
const SECRET: &str = "canary-of-the-hook";

fn client() -> Client {
    twitch("ours", "s").client
}

fn app() -> AccessToken {
    AccessToken::new("token")
}

fn callback() -> Url {
    Url::parse(CALLBACK).unwrap()
}

fn answer(status: u16, body: &str) -> Answer {
    let mut answer = Response::new(Bytes::from(body.to_owned()));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    Ok(answer)
}

fn says(status: u16, message: &str) -> Answer {
    answer(status, &json!({ "error": "words", "status": status, "message": message }).to_string())
}

const fn trouble_of(kind: FailureKind) -> ProviderFailure {
    ProviderFailure::new(kind)
}

/// A subscription of ours, as the provider writes it.
fn described(id: &str, status: &str) -> Value {
    json!({
        "id": id, "status": status, "type": REVOKE, "version": "1", "cost": 1,
        "condition": { "client_id": "ours" },
        "transport": { "method": "webhook", "callback": CALLBACK },
        "created_at": "2026-11-20T00:00:00.123456789Z",
    })
}

fn subscription(id: &str, status: &str) -> Subscription {
    Subscription {
        id: id.to_owned(),
        status: status.to_owned(),
        kind: REVOKE.to_owned(),
        version: Some("1".to_owned()),
        callback: Some(CALLBACK.to_owned()),
        client_id: Some("ours".to_owned()),
    }
}

#[test]
fn requests_are_as_documented() {
    let base = "https://api.twitch.tv/helix/eventsub/subscriptions";
    let list = EventSubSubscriptions.list(&client(), &app(), None);
    assert_eq!(list.method(), Method::GET);
    assert_eq!(list.uri().to_string(), format!("{base}?type=user.authorization.revoke"));
    let next = EventSubSubscriptions.list(&client(), &app(), Some("a&b="));
    assert_eq!(next.uri().to_string(), format!("{base}?type=user.authorization.revoke&after=a%26b%3D"));
    let delete = EventSubSubscriptions.delete(&client(), &app(), "a&b");
    assert_eq!(delete.method(), Method::DELETE);
    assert_eq!(delete.uri().to_string(), format!("{base}?id=a%26b"));
    let secret = WebhookSecret::new(SECRET).unwrap();
    let create = EventSubSubscriptions.create(&client(), &app(), &callback(), &secret);
    assert_eq!(create.method(), Method::POST);
    assert_eq!(create.uri(), base);
    assert_eq!(create.headers()["content-type"], "application/json");
    assert_eq!(
        serde_json::from_slice::<Value>(create.body()).unwrap(),
        json!({
            "type": "user.authorization.revoke",
            "version": "1",
            "condition": { "client_id": "ours" },
            "transport": { "method": "webhook", "callback": CALLBACK, "secret": SECRET },
        })
    );
    for request in [list, next, delete, create] {
        assert_eq!(request.headers()["client-id"], "ours");
        assert_eq!(request.headers()["authorization"], "Bearer token");
        assert!(!request.uri().to_string().contains("canary"));
    }
}

fn page_of(data: &Value, rest: &str) -> String {
    format!(r#"{{"total":1,"data":{data},"total_cost":0,"max_total_cost":10000{rest}}}"#)
}

fn read_page(body: &str) -> ListAnswer {
    EventSubSubscriptions.read_list(&client(), answer(200, body), NOW)
}

#[test]
fn a_list_is_read_page_by_page() {
    let data = json!([described("1", "enabled"), described("2", "notification_failures_exceeded")]);
    let found = vec![subscription("1", "enabled"), subscription("2", "notification_failures_exceeded")];
    let table = [
        ("", None),
        (r#","pagination":{}"#, None),
        (r#","pagination":null"#, None),
        (r#","pagination":{"cursor":""}"#, None),
        (r#","pagination":{"cursor":null}"#, None),
        (r#","pagination":{"cursor":"eyJiIjpu=="}"#, Some("eyJiIjpu==")),
    ];
    for (rest, next) in table {
        let expected = ListAnswer::Page { subscriptions: found.clone(), next: next.map(str::to_owned) };
        assert_eq!(read_page(&page_of(&data, rest)), expected, "{rest}");
    }
}

#[test]
fn a_subscription_that_says_too_little_is_left_out() {
    let without = |field: &str| {
        let mut one = described("1", "enabled");
        one.as_object_mut().unwrap().remove(field);
        one
    };
    let with = |field: &str, value: Value| {
        let mut one = described("1", "enabled");
        one[field] = value;
        one
    };
    let bare = |change: fn(&mut Subscription)| {
        let mut one = subscription("1", "enabled");
        change(&mut one);
        Some(one)
    };
    let table = [
        (without("id"), None),
        (without("status"), None),
        (without("type"), None),
        (with("id", json!("")), None),
        (with("id", json!(1)), None),
        (with("id", json!("x".repeat(256))), None),
        (with("status", json!("a b")), None),
        (without("version"), bare(|one| one.version = None)),
        (with("version", json!(1)), bare(|one| one.version = None)),
        (without("condition"), bare(|one| one.client_id = None)),
        (with("condition", json!({ "user_id": "1" })), bare(|one| one.client_id = None)),
        (without("transport"), bare(|one| one.callback = None)),
        (
            with("transport", json!({ "method": "conduit", "conduit_id": "c" })),
            bare(|one| one.callback = None),
        ),
        (with("new", json!([1])), bare(|_| ())),
    ];
    for (one, expected) in table {
        let found = read_page(&page_of(&json!([one]), ""));
        let expected = ListAnswer::Page { subscriptions: Vec::from_iter(expected), next: None };
        assert_eq!(found, expected, "{one}");
    }
}

#[test]
fn a_list_that_cannot_be_relied_on_says_nothing() {
    let long = format!(r#","pagination":{{"cursor":"{}"}}"#, "x".repeat(CURSOR_BYTES + 1));
    let table = [
        answer(200, ""),
        answer(200, "<html>"),
        answer(200, "{}"),
        answer(200, r#"{"data":{}}"#),
        answer(200, r#"{"data":[1]}"#),
        answer(200, r#"{"data":[["1","enabled","t","1",null,null]]}"#),
        answer(200, r#"{"data":[{"id":"1","id":"2"}]}"#),
        answer(200, r#"{"data":[{"condition":1}]}"#),
        answer(200, &page_of(&json!([]), &long)),
        answer(200, &page_of(&json!([]), r#","pagination":{"cursor":1}"#)),
        answer(200, &page_of(&json!([]), r#","pagination":{"cursor":"a b"}"#)),
    ];
    for answer in table {
        let described = format!("{answer:?}");
        let expected = ListAnswer::Unknown(trouble_of(FailureKind::Unreadable));
        assert_eq!(EventSubSubscriptions.read_list(&client(), answer, NOW), expected, "{described}");
    }
}

#[test]
fn other_answers_to_a_list_have_their_meaning() {
    let unknown = |kind| ListAnswer::Unknown(trouble_of(kind));
    let table = [
        (says(401, "Invalid OAuth token"), ListAnswer::TokenDead),
        (says(401, "Client ID and OAuth token do not match"), ListAnswer::Misconfigured),
        (says(400, "The after cursor is not valid"), unknown(FailureKind::Status(400))),
        (answer(500, ""), unknown(FailureKind::Status(500))),
        (Err(Unanswered::NoAnswer), unknown(FailureKind::NoAnswer)),
    ];
    for (answer, expected) in table {
        let described = format!("{answer:?}");
        assert_eq!(EventSubSubscriptions.read_list(&client(), answer, NOW), expected, "{described}");
    }
}

#[test]
fn every_answer_to_a_new_subscription_has_its_meaning() {
    let pending = described("26b1c993-bfcf-44d9-b876-379dacafe75a", "webhook_callback_verification_pending");
    let made = page_of(&json!([pending]), "");
    let unknown = |kind| CreateAnswer::Unknown(trouble_of(kind));
    let refused = |reason: &str| CreateAnswer::Refused(reason.to_owned());
    let unsafe_words = format!("a\u{1b}[31m\r\nb{}", "x".repeat(1000));
    let table = [
        (answer(202, &made), CreateAnswer::Created("26b1c993-bfcf-44d9-b876-379dacafe75a".to_owned())),
        (answer(200, &made), CreateAnswer::Created("26b1c993-bfcf-44d9-b876-379dacafe75a".to_owned())),
        (says(409, "subscription already exists"), CreateAnswer::Exists),
        (answer(409, ""), CreateAnswer::Exists),
        (says(401, "Invalid OAuth token"), CreateAnswer::TokenDead),
        (
            says(401, "Client ID and OAuth token do not match"),
            refused("Client ID and OAuth token do not match"),
        ),
        (says(400, "callback must use https"), refused("callback must use https")),
        (
            says(403, "subscription missing proper authorization"),
            refused("subscription missing proper authorization"),
        ),
        (answer(400, "{}"), refused("400 Bad Request")),
        (says(400, " \n"), refused("400 Bad Request")),
        (says(400, &unsafe_words), refused(&format!("a[31mb{}", "x".repeat(REFUSAL_CHARS - 6)))),
        (answer(400, "<html>"), unknown(FailureKind::Status(400))),
        (answer(403, "<html>"), unknown(FailureKind::Status(403))),
        (answer(401, "<html>"), unknown(FailureKind::Status(401))),
        (says(429, "too many of this type and condition"), unknown(FailureKind::Status(429))),
        (says(500, "anything"), unknown(FailureKind::Status(500))),
        (answer(202, ""), unknown(FailureKind::Unreadable)),
        (answer(202, &page_of(&json!([]), "")), unknown(FailureKind::Unreadable)),
        (answer(202, &page_of(&json!([pending, pending]), "")), unknown(FailureKind::Unreadable)),
        (Err(Unanswered::NotSent), unknown(FailureKind::NotSent)),
        (Err(Unanswered::NoAnswer), unknown(FailureKind::NoAnswer)),
    ];
    for (answer, expected) in table {
        let described = format!("{answer:?}");
        assert_eq!(EventSubSubscriptions.read_created(&client(), answer, NOW), expected, "{described}");
    }
}

#[test]
fn every_answer_to_a_deletion_has_its_meaning() {
    let unknown = |kind| DeleteAnswer::Unknown(trouble_of(kind));
    let table = [
        (answer(204, ""), DeleteAnswer::Done),
        (says(404, "subscription not found"), DeleteAnswer::Done),
        (says(401, "Invalid OAuth token"), DeleteAnswer::TokenDead),
        (says(401, "Client ID and OAuth token do not match"), unknown(FailureKind::Status(401))),
        (says(400, "id is required"), unknown(FailureKind::Status(400))),
        (answer(200, ""), unknown(FailureKind::Status(200))),
        (answer(503, ""), unknown(FailureKind::Status(503))),
        (Err(Unanswered::NoAnswer), unknown(FailureKind::NoAnswer)),
    ];
    for (answer, expected) in table {
        let described = format!("{answer:?}");
        assert_eq!(EventSubSubscriptions.read_deleted(&client(), answer, NOW), expected, "{described}");
    }
}

/// What stays: a subscription that works, one that waits to be verified, or none.
const WORKS: &str = "works";
const WAITS: &str = "waits";
const NONE: &str = "none";

fn plan(found: &[Subscription], current: Option<&str>) -> Plan {
    EventSubSubscriptions.plan(&client(), found, &callback(), current)
}

const FAILED: &str = "webhook_callback_verification_failed";

#[test]
fn one_good_subscription_of_ours_is_kept() {
    let to = |delete: &[&str], kept| Plan {
        delete: delete.iter().map(|id| (*id).to_owned()).collect(),
        create: kept == NONE,
        works: kept == WORKS,
    };
    let table: [(&[(&str, &str)], Plan); 13] = [
        (&[], to(&[], NONE)),
        (&[("2", "enabled")], to(&["2"], NONE)),
        (&[("1", PENDING), ("2", "enabled")], to(&["2"], WAITS)),
        (&[("1", "enabled")], to(&[], WORKS)),
        (&[("1", PENDING)], to(&[], WAITS)),
        (&[("1", FAILED)], to(&["1"], NONE)),
        (&[("1", "notification_failures_exceeded")], to(&["1"], NONE)),
        (&[("1", "a_new_status")], to(&["1"], NONE)),
        (&[("1", FAILED), ("2", "enabled")], to(&["1", "2"], NONE)),
        (&[("2", "enabled"), ("1", "enabled")], to(&["2"], WORKS)),
        (&[("1", PENDING), ("3", FAILED)], to(&["3"], WAITS)),
        (&[("1", PENDING), ("2", PENDING)], to(&["2"], WAITS)),
        (&[("1", FAILED), ("2", "version_removed")], to(&["1", "2"], NONE)),
    ];
    for (found, expected) in table {
        let found: Vec<_> = found.iter().map(|(id, status)| subscription(id, status)).collect();
        assert_eq!(plan(&found, Some("1")), expected, "{found:?}");
    }
}

/// What an older release made, or somebody else, has a secret that we do not know.
#[test]
fn one_that_is_not_remembered_is_made_again() {
    let expected = Plan { delete: vec!["1".to_owned()], create: true, works: false };
    assert_eq!(plan(&[subscription("1", "enabled")], None), expected);
}

#[test]
fn what_is_not_ours_is_left_alone_and_does_not_count() {
    let changes: [fn(&mut Subscription); 8] = [
        |one| one.callback = Some("https://other.example/hook".to_owned()),
        |one| one.callback = Some("https://app.example/hook".to_owned()),
        |one| one.callback = None,
        |one| one.kind = "user.authorization.grant".to_owned(),
        |one| one.version = Some("2".to_owned()),
        |one| one.version = None,
        |one| one.client_id = Some("another".to_owned()),
        |one| one.client_id = None,
    ];
    for change in changes {
        for status in ["enabled", FAILED] {
            let mut one = subscription("1", status);
            change(&mut one);
            let expected = Plan { delete: vec![], create: true, works: false };
            assert_eq!(plan(&[one.clone()], Some("1")), expected, "{one:?}");
        }
    }
}

fn found() -> impl Strategy<Value = Vec<Subscription>> {
    let statuses = vec!["enabled", PENDING, FAILED, "user_removed"];
    let one = (prop::sample::select(statuses), any::<bool>(), any::<bool>());
    proptest::collection::vec(one, 0..8).prop_map(|all| {
        all.into_iter()
            .enumerate()
            .map(|(number, (status, here, ours))| Subscription {
                callback: Some(if here { CALLBACK } else { "https://other.example/" }.to_owned()),
                client_id: Some(if ours { "ours" } else { "another" }.to_owned()),
                ..subscription(&number.to_string(), status)
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn a_plan_that_was_carried_out_leaves_one_and_nothing_to_do(found in found()) {
        let first = plan(&found, Some("1"));
        let mut left = found.clone();
        left.retain(|one| !first.delete.contains(&one.id));
        if first.create {
            left.push(subscription("new", PENDING));
        }
        let is_ours = |one: &&Subscription| is_ours(one, &callback(), "ours");
        prop_assert_eq!(left.iter().filter(is_ours).count(), 1);
        let again = plan(&left, Some(if first.create { "new" } else { "1" }));
        prop_assert!(again.delete.is_empty() && !again.create, "{:?}", again);
        let others = |all: &[Subscription]| all.iter().filter(|one| !is_ours(one)).count();
        prop_assert_eq!(others(&left), others(&found));
    }

    #[test]
    fn no_answer_panics(status in 100_u16..=999, body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut answer = Response::new(Bytes::from(body));
        *answer.status_mut() = StatusCode::from_u16(status).unwrap();
        let _ = EventSubSubscriptions.read_list(&client(), Ok(answer.clone()), NOW);
        let _ = EventSubSubscriptions.read_created(&client(), Ok(answer.clone()), NOW);
        let _ = EventSubSubscriptions.read_deleted(&client(), Ok(answer), NOW);
    }
}
