//! What happens to the accounts of users: they are renamed, suspended and deleted.

use serde::Deserialize;

use crate::config::User;
use crate::mock::MockTwitch;

/// New values of a user's fields; those that are missing stay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UserPatch {
    /// The login name.
    pub login: Option<String>,
    /// The display name.
    pub display_name: Option<String>,
    /// The verified e-mail address.
    pub email: Option<String>,
    /// Whether the account is suspended.
    pub suspended: Option<bool>,
}

impl UserPatch {
    /// Another login and display name.
    pub fn rename(login: impl Into<String>, display_name: impl Into<String>) -> Self {
        Self { login: Some(login.into()), display_name: Some(display_name.into()), ..Self::default() }
    }

    /// Suspends the account, or ends its suspension.
    pub fn suspend(suspended: bool) -> Self {
        Self { suspended: Some(suspended), ..Self::default() }
    }

    fn applied_to(&self, user: &User) -> User {
        let patch = self.clone();
        User {
            id: user.id.clone(),
            login: patch.login.unwrap_or_else(|| user.login.clone()),
            display_name: patch.display_name.unwrap_or_else(|| user.display_name.clone()),
            email: patch.email.or_else(|| user.email.clone()),
            suspended: patch.suspended.unwrap_or(user.suspended),
        }
    }
}

impl MockTwitch {
    /// Changes a user. Somebody who is suspended cannot sign in, all tokens die, and Helix leaves
    /// the user out.
    ///
    /// Twitch documents none of this. The connections stay, so no subscriber is notified.
    ///
    /// # Errors
    /// A sentence for the person who changes the user.
    pub fn patch_user(&mut self, user_id: &str, patch: &UserPatch) -> Result<&User, String> {
        let user = self.users.get(user_id).ok_or_else(|| format!("there is no user {user_id}"))?;
        let changed = patch.applied_to(user);
        changed.check()?;
        if changed.suspended {
            self.kill_tokens(user_id);
        }
        self.add_user(changed);
        self.users.get(user_id).ok_or_else(|| format!("there is no user {user_id}"))
    }

    /// Deletes an account: all its connections end. Subscribers are notified, without the user's
    /// login and name.
    pub fn delete_user(&mut self, user_id: &str) -> bool {
        let existed = self.users.remove(user_id).is_some();
        for pair in self.state.pairs_of(user_id) {
            self.end_connection(&pair);
        }
        existed
    }

    /// A user who exists and is not suspended.
    pub(crate) fn active_user(&self, user_id: &str) -> Option<&User> {
        self.users.get(user_id).filter(|user| !user.suspended)
    }
}
