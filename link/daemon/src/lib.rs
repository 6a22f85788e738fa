//! link-daemon
