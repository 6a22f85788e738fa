//! What the kernel alone takes for a packet: a connected send and a receive on loopback.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use super::generator::PACKET_BYTES;
use crate::machine::{pin_thread, thread_cpu};

const COUPLES: usize = 64;

/// CPU of one connected send and one receive, in µs, measured for `time` on one core.
///
/// # Errors
/// Of the sockets, or if the core is not allowed.
pub fn send_and_receive_us(core: usize, time: Duration) -> anyhow::Result<f64> {
    let thread = std::thread::Builder::new().name("kernel".to_owned()).spawn(move || {
        pin_thread(core)?;
        measure(time)
    })?;
    thread.join().map_err(|_| anyhow::anyhow!("the kernel's loop ended by panic"))?
}

fn measure(time: Duration) -> anyhow::Result<f64> {
    let couples: Vec<(UdpSocket, UdpSocket)> = (0..COUPLES)
        .map(|_| {
            let (a, b) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
            a.connect(b.local_addr()?)?;
            b.connect(a.local_addr()?)?;
            Ok((a, b))
        })
        .collect::<std::io::Result<_>>()?;
    let packet = [0x55; PACKET_BYTES];
    let mut bytes = [0; 512];
    let (began, cpu) = (Instant::now(), thread_cpu());
    let mut packets = 0u64;
    while began.elapsed() < time {
        for (a, _) in &couples {
            a.send(&packet)?;
        }
        for (_, b) in &couples {
            packets += u64::from(b.recv(&mut bytes)? == PACKET_BYTES);
        }
    }
    anyhow::ensure!(packets > 0, "no packet in {time:?}");
    Ok((thread_cpu() - cpu).as_secs_f64() * 1e6 / packets as f64)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_packet_costs_something() {
        let core = crate::machine::Cores::of_process().unwrap().system;
        let us = super::send_and_receive_us(core, std::time::Duration::from_millis(20)).unwrap();
        assert!(us > 0.05 && us < 1_000.0, "{us}");
    }
}
