//! Why sessions end.

use crate::named;

named! {
    /// Why a session ended.
    pub enum EndReason {
        /// The user signed out on this device.
        SignedOut = "signed_out",
        /// The user ended this session from another device.
        SignedOutFromAnotherDevice = "signed_out_from_another_device",
        /// The user signed out everywhere.
        SignedOutEverywhere = "signed_out_everywhere",
        /// The same browser signed in again.
        ReplacedBySignIn = "replaced_by_sign_in",
        /// The user disconnected the app at the provider.
        DisconnectedAtProvider = "disconnected_at_provider",
        /// The provider says that the refresh token is dead.
        RefreshTokenRejected = "refresh_token_rejected",
        /// The provider says that the token belongs to another user, or to none.
        TokenOfAnotherSubject = "token_of_another_subject",
        /// The session was not used for too long.
        Idle = "idle",
        /// The session reached its maximum age.
        TooOld = "too_old",
        /// The user signed in on more devices than allowed, and this one was used least recently.
        DeviceLimit = "device_limit",
        /// An administrator ended it, or a rule that the operator chose, such as `session.cascade`.
        Administrator = "administrator",
        /// The provider asked for it.
        ProviderLogout = "provider_logout",
        /// The user's account at the provider no longer exists.
        AccountGone = "account_gone",
    }
}

impl EndReason {
    /// Returns whether it may apply to every device of the user. All others end only one row
    /// (BLAST).
    pub fn user_wide(self) -> bool {
        matches!(
            self,
            Self::Administrator
                | Self::SignedOutEverywhere
                | Self::DisconnectedAtProvider
                | Self::ProviderLogout
                | Self::AccountGone
        )
    }
}
