//! Receive-buffer overflows, as `/proc/net/udp` counts them per socket.

use std::net::SocketAddr;

use super::RelayStats;

/// Adds the kernel's drop count of every listen socket; nothing if `/proc` cannot be read.
pub fn add_listen_drops(stats: &mut RelayStats) {
    let v4 = std::fs::read_to_string("/proc/net/udp").unwrap_or_default();
    let v6 = std::fs::read_to_string("/proc/net/udp6").unwrap_or_default();
    for mapping in &mut stats.mappings {
        let table = if mapping.listen.is_ipv4() { &v4 } else { &v6 };
        mapping.socket_drops = drops_of(table, mapping.listen);
    }
}

fn drops_of(table: &str, addr: SocketAddr) -> u64 {
    let local = match addr {
        // The kernel prints the address as a little-endian word, the port as it reads.
        SocketAddr::V4(v4) => {
            format!("{:08X}:{:04X}", u32::from_le_bytes(v4.ip().octets()), v4.port())
        }
        SocketAddr::V6(v6) => format!(":{:04X}", v6.port()),
    };
    table
        .lines()
        .skip(1)
        .filter(|line| line.split_whitespace().nth(1).is_some_and(|a| a.ends_with(&local)))
        .filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_row_of_an_address() {
        let head =
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when inode ref drops";
        let row = |addr: &str, drops: u32| {
            format!("123: {addr} 00000000:0000 07 00000000:00000000 00:00000000 0 4242 2 {drops}")
        };
        let rows = [head.to_owned(), row("0100007F:1B59", 17), row("0200007F:1B59", 5)];
        let table = &rows.join("\n");
        assert_eq!(drops_of(table, "127.0.0.1:7001".parse().unwrap()), 17);
        assert_eq!(drops_of(table, "127.0.0.2:7001".parse().unwrap()), 5);
        assert_eq!(drops_of(table, "127.0.0.1:7002".parse().unwrap()), 0);
    }
}
