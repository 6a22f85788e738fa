//! How each of our processes behaves: configuration, log, metrics, admin port, certificates, QUIC
//! endpoints, signals and drain. Knows nothing of calls.
//!
//! * [`config`] — TOML with every error reported at once; sample and reference from the same keys.
//! * [`clock`] and [`entropy`] — the only places that read time and take a random seed.
//! * [`log`], [`metrics`], [`admin`] — what operators see.
//! * [`tls`] and [`quic`] — mutual TLS, control stream, byte streams, datagram settings.
//! * [`reload`] — a new configuration without a restart.
//! * [`signal`] and [`drain`] — how a process ends.

pub mod admin;
pub mod clock;
pub mod config;
pub mod drain;
pub mod entropy;
pub mod log;
pub mod metrics;
pub mod quic;
pub mod reload;
pub mod signal;
pub mod tls;

/// Makes ring the crypto provider of the process. First thing in every binary; repeats do nothing.
pub fn install_crypto_provider() {
    // An error only says that a provider is installed already, which is what is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
