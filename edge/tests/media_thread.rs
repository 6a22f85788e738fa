//! A media thread on real sockets: two phones on loopback, signalling's queues, a trunk ring.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use edge::media_handle::{MediaHandle, MediaQueues, ToMedia};
use edge::media_thread::{self, MediaThreadConfig};
use edge::trunk_ring;
use edge_media::command::*;
use edge_media::event::*;
use edge_media::recording::RecorderMessage;
use edge_uring::{Limits, WaitConfig};
use link_daemon::metrics::Metrics;
use link_proto::{ChannelId, OpId};
use tokio::sync::Notify;

const SESSION: SessionKey = SessionKey { index: 0, generation: 0 };

struct Rig {
    handle: MediaHandle,
    thread: edge_uring::MediaThread,
    trunk_out: trunk_ring::PacketReceiver,
    trunk_in: trunk_ring::PacketSender,
    doorbell: Arc<edge_uring::Doorbell>,
    recorder: Arc<ArrayQueue<RecorderMessage>>,
    metrics: Metrics,
    events: Vec<WorkerEvent>,
}

/// A phone with its two sockets, and the edge's addresses for it.
struct Phone {
    rtp: UdpSocket,
    rtcp: UdpSocket,
    edge: SocketAddr,
    seq: u16,
}

fn bind() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    socket
}

impl Phone {
    fn send(&mut self, payload: u8) {
        self.seq += 1;
        let mut packet = vec![0x80, 0];
        packet.extend(self.seq.to_be_bytes());
        packet.extend((u32::from(self.seq) * 160).to_be_bytes());
        packet.extend([1, 2, 3, 4]);
        packet.extend([payload; 160]);
        self.rtp.send_to(&packet, self.edge).expect("sent");
    }

    /// The first byte of the next packet's payload that is not silence.
    fn hear(&self) -> u8 {
        let mut buffer = [0; 2_048];
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            let length = self.rtp.recv(&mut buffer).expect("RTP within five seconds");
            assert!(length >= 172, "{length} bytes");
            if buffer[12] != 0xff {
                return buffer[12];
            }
        }
        panic!("nothing but silence");
    }
}

impl Rig {
    fn new() -> Self {
        let wake = Arc::new(Notify::new());
        let queues = MediaQueues::new(64, wake).expect("a descriptor");
        let doorbell = Arc::clone(&queues.doorbell);
        let (trunk_sender, trunk_out) = trunk_ring::ring(1 << 16);
        let (trunk_in, trunk_receiver) = trunk_ring::ring(1 << 16);
        let recorder = Arc::new(ArrayQueue::new(1_000));
        let config = MediaThreadConfig {
            index: 0,
            queues: queues.clone(),
            trunk_out: trunk_sender,
            trunk_wake: Arc::default(),
            epoch: trunk_ring::Epoch::new(link_daemon::clock::now()),
            trunk_in: trunk_receiver,
            recorder: Arc::clone(&recorder),
            ports_max: 32,
            limits: Limits { sockets_max: 64, rx_buffers: 256, ..Limits::default() },
            wait: WaitConfig::default(),
            core: None,
            fifo_priority: None,
            fast_path: None,
        };
        let metrics = Metrics::new("edge");
        let thread = media_thread::spawn(config, &metrics).expect("an io_uring");
        let handle = MediaHandle::new(queues);
        let events = Vec::new();
        Self { handle, thread, trunk_out, trunk_in, doorbell, recorder, metrics, events }
    }

    fn tell(&mut self, message: ToMedia) {
        self.handle.push(message);
        self.handle.flush();
    }

    fn command(&mut self, command: WorkerCommand) {
        self.tell(ToMedia::Command(command));
    }

    fn add_phone(&mut self, index: u32) -> (PortKey, Phone) {
        let port = PortKey { index, generation: 1 };
        let (rtp, rtcp) = (bind(), bind());
        let edge = rtp.local_addr().expect("bound");
        let phone = Phone { rtp: bind(), rtcp: bind(), edge, seq: 100 };
        self.tell(ToMedia::Sockets { port, rtp, rtcp });
        let config = LegConfig {
            receive: vec![PayloadMapping { payload_type: 0, codec: AudioCodec::Pcmu }],
            send: PayloadMapping { payload_type: 0, codec: AudioCodec::Pcmu },
            telephone_event_receive: Some(101),
            telephone_event_send: Some(101),
            ptime_ms: 20,
            remote_rtp: phone.rtp.local_addr().ok(),
            remote_rtcp: phone.rtcp.local_addr().ok(),
            rtcp_mux: false,
            latching: Latching::SdpNetwork,
            latch_epoch: 0,
            local_ssrc: 0x1000 + index,
            cname: "leg@edge".to_owned(),
            media_timeout_ms: None,
            answered: true,
            direction: Direction::SendRecv,
        };
        self.command(WorkerCommand::AddLeg { port, session: SESSION, config });
        (port, phone)
    }

    fn wait_for(&mut self, wanted: impl Fn(&WorkerEvent) -> bool) -> WorkerEvent {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(at) = self.events.iter().position(&wanted) {
                return self.events.remove(at);
            }
            assert!(Instant::now() < end, "no such event in {:?}", self.events);
            match self.handle.event() {
                Some(event) => self.events.push(event),
                None => std::thread::yield_now(),
            }
        }
    }
}

#[test]
fn two_phones_talk_and_everything_is_given_back() {
    let mut rig = Rig::new();
    let (a, mut first) = rig.add_phone(3);
    let (b, mut second) = rig.add_phone(4);
    let path = LinkPath::Relay;
    rig.command(WorkerCommand::Connect { from: a, to: b, path });
    rig.command(WorkerCommand::Connect { from: b, to: a, path });
    for n in 0..50 {
        first.send(n);
        assert_eq!(second.hear(), n);
        second.send(n + 100);
        assert_eq!(first.hear(), n + 100);
    }
    // A stranger is not heard: the socket is tied to the phone.
    let stranger = Phone { rtp: bind(), rtcp: bind(), edge: first.edge, seq: 0 };
    let mut stranger = stranger;
    stranger.send(0x66);
    first.send(0x55);
    assert_eq!(second.hear(), 0x55);

    // A prompt, then the far end of a trunk.
    let prompt = Arc::new(Prompt { samples: vec![1_000; 8_000] });
    let op = OpKey { session: SESSION, op: OpId(1) };
    let items = vec![ProgramItem::Prompt { prompt: Arc::clone(&prompt), times: 0 }];
    rig.command(WorkerCommand::StartPlay { op, port: a, items });
    rig.wait_for(|event| *event == WorkerEvent::PlayStarted { op });
    let program = RecordProgram {
        recorder: RecorderHandle(9),
        with: None,
        track: edge_media::command::RecordTrack::Received,
        paused: None,
        dual_channel: false,
        start: ProgramStart::Now,
        length_max_ms: 60,
        silence_timeout_ms: 0,
        finish_on: String::new(),
        trim_silence: false,
    };
    let record = OpKey { session: SESSION, op: OpId(2) };
    rig.command(WorkerCommand::StartRecord { op: record, port: a, program });
    rig.wait_for(|event| matches!(event, WorkerEvent::RecordDone { duration_ms: 60, .. }));
    assert_eq!(rig.recorder.len(), 4, "three blocks and the end");
    rig.command(WorkerCommand::StopOp { op });
    rig.wait_for(|event| matches!(event, WorkerEvent::PlayDone { end: PlayEnd::Stopped, .. }));

    let channel = PortKey { index: 9, generation: 0 };
    let config = ChannelConfig {
        peer: 2,
        channel: ChannelId(77),
        codec: AudioCodec::Pcmu,
        telephone_event: None,
        local_ssrc: 5,
    };
    rig.command(WorkerCommand::AddChannel { port: channel, session: SESSION, config });
    rig.command(WorkerCommand::Connect { from: channel, to: b, path });
    rig.command(WorkerCommand::Connect { from: b, to: channel, path });
    rig.command(WorkerCommand::Snapshot { session: SESSION, phase: 1 });
    rig.wait_for(|event| matches!(event, WorkerEvent::Snapshot { phase: 1, .. }));
    let address = trunk_ring::Address { peer: 2, channel: ChannelId(77) };
    // A switch may be put off by up to three packets.
    for n in 0..4_u8 {
        let mut packet = vec![0x80, 0, 0, 9 + n, 0, 0, 0, 0, 9, 9, 9, 9];
        packet[4..8].copy_from_slice(&(u32::from(n) * 160).to_be_bytes());
        packet.extend([0x31; 160]);
        assert!(rig.trunk_in.send(address, 0, &packet));
    }
    rig.doorbell.ring();
    assert_eq!(second.hear(), 0x31);
    second.send(0x32);
    let mut buffer = [0; trunk_ring::PACKET_BYTES_MAX];
    let end = Instant::now() + Duration::from_secs(5);
    let (to, length) = loop {
        assert!(Instant::now() < end, "nothing for the trunk");
        if let Some(received) = rig.trunk_out.receive(&mut buffer) {
            break received;
        }
        std::thread::yield_now();
    };
    assert_eq!((to, length, buffer[12]), (address, 172, 0x32));

    for port in [a, b, channel] {
        rig.command(WorkerCommand::RemovePort { port });
        let gone = |event: &WorkerEvent| matches!(event, WorkerEvent::PortRemoved { port: p, .. } if *p == port);
        let WorkerEvent::PortRemoved { stats, .. } = rig.wait_for(gone) else { panic!() };
        assert!(stats.packets_received > 0 || port == channel, "{stats:?}");
        assert!(stats.longest_gap_out_us < 500_000, "{stats:?}");
        rig.tell(ToMedia::Release { port });
    }
    // The ports can be bound again, and the prompt is ours alone.
    let end = Instant::now() + Duration::from_secs(5);
    for edge in [first.edge, second.edge] {
        while UdpSocket::bind(edge).is_err() {
            assert!(Instant::now() < end, "{edge} is still taken");
            std::thread::yield_now();
        }
    }
    while Arc::strong_count(&prompt) > 1 {
        assert!(Instant::now() < end, "the prompt is still held");
        std::thread::yield_now();
    }
    assert!(rig.metrics.encode().contains("tandem_edge_media_packets_relayed"));
    assert_eq!(first.rtcp.local_addr().is_ok(), second.rtcp.local_addr().is_ok());
    let stats = rig.thread.stop().expect("a clean end");
    assert_eq!((stats.sockets_added, stats.sockets_removed), (4, 4));
    assert_eq!((stats.send_failed(), stats.sends_dropped_ring), (0, 0));
}

#[test]
fn no_event_is_lost_when_signalling_is_slow() {
    let mut rig = Rig::new();
    for phase in 0..500 {
        rig.command(WorkerCommand::Snapshot { session: SESSION, phase });
    }
    let mut seen = 0;
    let end = Instant::now() + Duration::from_secs(10);
    while seen < 500 {
        assert!(Instant::now() < end, "{seen} events");
        rig.handle.flush();
        match rig.handle.event() {
            Some(WorkerEvent::Snapshot { phase, .. }) => {
                assert_eq!(phase, seen);
                seen += 1;
            }
            Some(other) => panic!("{other:?}"),
            None => std::thread::yield_now(),
        }
    }
    rig.thread.stop().expect("a clean end");
}
