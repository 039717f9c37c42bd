//! `GET /auth/devices`, `POST /auth/devices/{id}/end`, `POST /auth/devices/end-others`: the user's
//! devices, as a page and as JSON. None of them needs the provider.

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    response::{IntoResponse, Redirect, Response},
};
use claviger_core::{EndReason, ProviderHabits, Session, SessionId, Timestamp, TokenStatus};
use claviger_engine::{Caller, Denied, EndError, Target};
use http::{StatusCode, request::Parts};
use serde::Serialize;

use super::{logout::signed_out, session::rfc3339};
use crate::{
    claviger::Claviger,
    head::RequestHead,
    pages::{Device, Devices, When},
    params::Params,
    problem::no_store,
    respond,
};

#[derive(Serialize)]
struct ListBody<'a> {
    devices: Vec<DeviceBody<'a>>,
}

#[derive(Serialize)]
struct DeviceBody<'a> {
    id: String,
    name: &'a str,
    this_device: bool,
    first_seen: String,
    last_seen: String,
    /// State of the tokens: `none`, `in_order`, `refreshing`, `answer_lost` or `renewal_needed`.
    tokens: &'static str,
}

#[derive(Serialize)]
struct EndedBody {
    ended: usize,
}

/// Lists the devices.
pub(crate) async fn list(State(claviger): State<Claviger>, head: RequestHead, parts: Parts) -> Response {
    // Images, scripts and other sites must learn nothing from this answer.
    if head.embedded {
        return respond::of_denied(&Denied::NoSession).json();
    }
    let caller = match claviger.owner(&head).await {
        Ok(caller) => caller,
        Err(denied) => return claviger.deny(&head, &denied).await,
    };
    let page = head.shows_page();
    let sessions = match claviger.engine().devices(caller.subject()).await {
        Ok(sessions) => sessions,
        Err(error) => return respond::of_denied(&Denied::Store(error)).answer(page),
    };
    let habits = &claviger.engine().provider().habits;
    let now = claviger.engine().now();
    if page {
        as_html(&caller, &sessions, now, habits, signed_out_just_now(&parts))
    } else {
        as_json(&caller, &sessions, now, habits)
    }
}

/// Signs one device out. For the caller's own device this is a sign-out.
pub(crate) async fn end_one(
    State(claviger): State<Claviger>,
    id: Result<Path<String>, PathRejection>,
    head: RequestHead,
) -> Response {
    let page = head.shows_page();
    let caller = match claviger.owner(&head).await {
        Ok(caller) => caller,
        Err(denied) => return respond::of_denied(&denied).posted().answer(page),
    };
    let Some(id) = id.ok().and_then(|Path(id)| id.parse::<SessionId>().ok()) else {
        return respond::of_end_error(&EndError::NotFound).answer(page);
    };
    let own = id == caller.session();
    let reason = if own { EndReason::SignedOut } else { EndReason::SignedOutFromAnotherDevice };
    let target = Target::DeviceOf(caller.subject().clone(), id);
    match claviger.engine().end(target, reason).await {
        Ok(_) if own => signed_out(&claviger, page, None),
        Ok(ended) => done(ended, page),
        Err(error) => respond::of_end_error(&error).posted().answer(page),
    }
}

/// Signs all other devices out.
pub(crate) async fn end_others(State(claviger): State<Claviger>, head: RequestHead) -> Response {
    let page = head.shows_page();
    let caller = match claviger.owner(&head).await {
        Ok(caller) => caller,
        Err(denied) => return respond::of_denied(&denied).posted().answer(page),
    };
    let target = Target::Others(caller.subject().clone(), caller.session());
    match claviger.engine().end(target, EndReason::SignedOutFromAnotherDevice).await {
        Ok(ended) => done(ended, page),
        Err(error) => respond::of_end_error(&error).posted().answer(page),
    }
}

fn done(ended: usize, page: bool) -> Response {
    let answer = if page {
        Redirect::to(&format!("/auth/devices?signed_out={ended}")).into_response()
    } else {
        (StatusCode::OK, Json(EndedBody { ended })).into_response()
    };
    no_store(answer)
}

fn as_json(caller: &Caller, sessions: &[Session], now: Timestamp, habits: &ProviderHabits) -> Response {
    let devices = sessions
        .iter()
        .map(|session| DeviceBody {
            id: session.id.to_string(),
            name: session.device.as_str(),
            this_device: session.id == caller.session(),
            first_seen: rfc3339(session.created_at),
            last_seen: rfc3339(session.last_seen_at),
            tokens: session.token_status(now, habits).name(),
        })
        .collect();
    no_store(Json(ListBody { devices }).into_response())
}

/// Number of devices that the button which led here has signed out, if one did.
fn signed_out_just_now(parts: &Parts) -> Option<usize> {
    Params::of(&parts.uri).ok()?.one("signed_out").ok()??.parse().ok()
}

fn as_html(
    caller: &Caller,
    sessions: &[Session],
    now: Timestamp,
    habits: &ProviderHabits,
    signed_out: Option<usize>,
) -> Response {
    let this_id = caller.session().to_string();
    let devices: Vec<Device> = sessions.iter().map(|session| device(session, now, habits)).collect();
    Devices {
        said: signed_out.map(|count| match count {
            1 => "1 device is signed out".to_owned(),
            count => format!("{count} devices are signed out"),
        }),
        display_name: caller.display_name(),
        this: devices.iter().find(|device| device.id == this_id),
        others: devices.iter().filter(|device| device.id != this_id).collect(),
    }
    .into_response()
}

fn device(session: &Session, now: Timestamp, habits: &ProviderHabits) -> Device {
    let token_status = session.token_status(now, habits);
    Device {
        id: session.id.to_string(),
        name: session.device.to_string(),
        first_seen: when(session.created_at, now),
        last_seen: when(session.last_seen_at, now),
        answer_lost: token_status == TokenStatus::AnswerLost,
        renewal_needed: token_status == TokenStatus::RenewalNeeded,
    }
}

fn when(at: Timestamp, now: Timestamp) -> When {
    When { words: words(now.since(at).as_secs()), exact: rfc3339(at) }
}

/// A duration in words.
fn words(secs: u64) -> String {
    let (count, unit) = match secs {
        0..120 => return "just now".to_owned(),
        120..7200 => (secs / 60, "minutes"),
        7200..172_800 => (secs / 3600, "hours"),
        _ => (secs / 86_400, "days"),
    };
    format!("{count} {unit} ago")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_rounded_down() {
        let table = [
            (0, "just now"),
            (119, "just now"),
            (120, "2 minutes ago"),
            (7199, "119 minutes ago"),
            (7200, "2 hours ago"),
            (172_799, "47 hours ago"),
            (172_800, "2 days ago"),
        ];
        for (secs, expected) in table {
            assert_eq!(words(secs), expected);
        }
    }
}
