//! Digest authentication, client side (RFC 7616, RFC 8760).

pub mod digest;

/// What a trunk gave us to answer its challenges.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
    /// Realm for which they are good; `None` answers any realm.
    pub realm: Option<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The password never reaches a log.
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}
