//! The settings of `[assertion]`.

use super::declare::settings;

settings! {
    /// `[assertion]`
    pub struct Assertion {
        /// Turns on `X-Auth-Assertion`: a signed statement of who is calling, valid for a minute,
        /// in each request to the app that has a session. The value is a name of your app, such as
        /// its address. The app compares it with `aud`. The keys are at `/auth/jwks.json`;
        /// [assertions.md](assertions.md) shows how to verify it.
        audience: Option<String>, example "https://app.example";
    }
}
