//! `/settings/connections`: the page where a user disconnects an app.

use http::StatusCode;

use crate::exchange::{self, Answer, Call, Refusal};
use crate::mock::MockTwitch;
use crate::oauth::authorize::{USER_COOKIE, set_user_cookie};
use crate::pages;

impl MockTwitch {
    /// Answers GET (the page) and POST (`action=disconnect` with `user` and `client_id`, or
    /// `action=logout`).
    pub(crate) fn connections(&mut self, call: &mut Call<'_>) -> Answer {
        if call.is_get() {
            let current = call.cookie(USER_COOKIE).filter(|id| self.users.contains_key(*id));
            return pages::connections(self, current);
        }
        if !call.is_post() {
            return exchange::not_found();
        }
        if call.is_cross_site() {
            let refusal = Refusal::new(StatusCode::FORBIDDEN, "This must come from the connections page");
            return pages::refusal(&refusal, StatusCode::FORBIDDEN);
        }
        let back = || exchange::redirect(StatusCode::SEE_OTHER, "/settings/connections");
        let mut answer = back().unwrap_or_else(exchange::not_found);
        match (call.params.get("action"), call.params.get("user"), call.params.get("client_id")) {
            (Some("disconnect"), Some(user_id), Some(client_id)) => {
                call.note.client_id = self.known_client(client_id);
                call.note.user_id = self.users.get(user_id).map(|user| user.id.clone());
                self.disconnect(user_id, client_id);
            }
            (Some("logout"), _, _) => set_user_cookie(&mut answer, None),
            _ => return pages::refusal(&Refusal::bad_request("Unknown action"), StatusCode::BAD_REQUEST),
        }
        answer
    }
}
