//! Tests that mostly wait for calls to pass: several run at a time.

mod audio;
mod controls;
mod fbk;
mod hostile;
mod keys;
mod link;
mod med;
mod med_layer;
mod med_recordings;
mod med_speech;
mod reload;
mod router;
mod ses;
mod tel;
mod xdp;
