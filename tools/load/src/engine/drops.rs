//! Receive-buffer overflows of sockets, as `/proc/net/udp` counts them.

use std::collections::HashMap;
use std::net::SocketAddr;

/// Drops by (is IPv6, local port), for one reading of the tables.
pub struct Drops {
    by_port: HashMap<(bool, u16), u64>,
}

impl Drops {
    /// Reads the tables; empty if `/proc` cannot be read.
    pub fn read() -> Self {
        let mut by_port = HashMap::new();
        for (is_v6, path) in [(false, "/proc/net/udp"), (true, "/proc/net/udp6")] {
            let table = std::fs::read_to_string(path).unwrap_or_default();
            by_port.extend(rows(&table).map(|(port, drops)| ((is_v6, port), drops)));
        }
        Self { by_port }
    }

    /// Drops of the socket bound to `addr`.
    pub fn of(&self, addr: SocketAddr) -> u64 {
        self.by_port.get(&(addr.is_ipv6(), addr.port())).copied().unwrap_or(0)
    }
}

fn rows(table: &str) -> impl Iterator<Item = (u16, u64)> {
    table.lines().skip(1).filter_map(|line| {
        let port = line.split_whitespace().nth(1)?.rsplit(':').next()?;
        let drops = line.split_whitespace().last()?.parse().ok()?;
        Some((u16::from_str_radix(port, 16).ok()?, drops))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read() {
        let table =
            "  sl  local_address rem_address\n  1: 0100007F:1B59 00000000:0000 07 0 4242 2 0 17\n";
        assert_eq!(rows(table).collect::<Vec<_>>(), [(7001, 17)]);
    }
}
