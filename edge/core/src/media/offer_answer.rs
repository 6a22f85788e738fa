//! Offer and answer of one leg, and what follows from them for its worker.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use edge_media::command::{Direction, Latching, LegConfig, PayloadMapping};
use link_proto::media::AudioCodec;
use rand::RngExt as _;
use rand::rngs::StdRng;
use sip_core::sdp::{
    CodecSpec, Direction as SdpDirection, LocalMedia, NegotiateError, Negotiated, SdpError,
    Session, SessionState, negotiate_answer, negotiate_offer,
};

use crate::config::EdgeConfig;

/// Why offer and answer did not come to a session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MediaError {
    #[error("session description: {0}")]
    Sdp(#[from] SdpError),
    #[error("{0}")]
    Negotiate(#[from] NegotiateError),
    #[error("no media address yet")]
    NoAddress,
    #[error("no offer or answer is due")]
    State,
}

/// Forks whose early answers are remembered.
const EARLY_MAX: usize = 16;

/// Session description side of a leg.
#[derive(Debug, Clone)]
pub(crate) struct LegMedia {
    sdp: SessionState,
    /// Advertised RTP address of this edge.
    local_address: IpAddr,
    /// Advertised RTP and RTCP addresses.
    addresses: Option<(SocketAddr, SocketAddr)>,
    /// Codecs that this leg may use, best first.
    codecs: Vec<AudioCodec>,
    telephone_event: u8,
    ptime_ms: u16,
    /// Offer of the endpoint that is not answered.
    remote_offer: Option<Session>,
    /// What the INVITE was answered with; a 183 and the 200 carry the same.
    answer: Option<Bytes>,
    /// Our offer that is not answered.
    local_offer: Option<LocalMedia>,
    /// Early answers to it, by the tag of the fork.
    early: Vec<(String, Bytes)>,
    negotiated: bool,
    config: LegConfig,
}

fn spec(codec: AudioCodec) -> CodecSpec {
    match codec {
        AudioCodec::Pcmu => CodecSpec::pcmu(),
        AudioCodec::Pcma => CodecSpec::pcma(),
    }
}

fn codec_of(spec: &CodecSpec) -> Option<AudioCodec> {
    [AudioCodec::Pcmu, AudioCodec::Pcma]
        .into_iter()
        .find(|codec| self::spec(*codec).same_encoding(spec))
}

fn direction_of(direction: SdpDirection) -> Direction {
    match (direction.sends(), direction.receives()) {
        (true, true) => Direction::SendRecv,
        (true, false) => Direction::SendOnly,
        (false, true) => Direction::RecvOnly,
        (false, false) => Direction::Inactive,
    }
}

impl LegMedia {
    pub(crate) fn new(
        config: &EdgeConfig,
        codecs: Vec<AudioCodec>,
        latching: Latching,
        rng: &mut StdRng,
    ) -> Self {
        let first = codecs.first().copied().unwrap_or(AudioCodec::Pcmu);
        let send = PayloadMapping { payload_type: first.static_payload_type(), codec: first };
        let media_timeout = config.media_timeout.map(|t| t.as_millis());
        Self {
            sdp: SessionState::new(rng.random::<u64>() >> 2),
            local_address: config.media_address,
            addresses: None,
            codecs,
            telephone_event: config.telephone_event,
            ptime_ms: config.ptime_ms,
            remote_offer: None,
            answer: None,
            local_offer: None,
            early: Vec::new(),
            negotiated: false,
            config: LegConfig {
                receive: vec![send],
                send,
                telephone_event_receive: None,
                telephone_event_send: None,
                ptime_ms: u32::from(config.ptime_ms),
                remote_rtp: None,
                remote_rtcp: None,
                rtcp_mux: false,
                latching,
                latch_epoch: 0,
                local_ssrc: rng.random(),
                cname: format!("{:016x}", rng.random::<u64>()),
                media_timeout_ms: media_timeout.and_then(|ms| u32::try_from(ms).ok()),
                answered: false,
                direction: Direction::SendRecv,
            },
        }
    }

    /// What the worker has to know.
    pub(crate) fn config(&self) -> &LegConfig {
        &self.config
    }

    /// Codec in use.
    pub(crate) fn codec(&self) -> AudioCodec {
        self.config.send.codec
    }

    /// Codecs that both sides could use, best first.
    pub(crate) fn codecs(&self) -> &[AudioCodec] {
        &self.codecs
    }

    /// Offer and answer are done.
    pub(crate) fn is_negotiated(&self) -> bool {
        self.negotiated
    }

    /// Our offer waits for its answer.
    pub(crate) fn awaits_answer(&self) -> bool {
        self.local_offer.is_some()
    }

    /// The endpoint has put us on hold: it wants no media from us.
    pub(crate) fn is_held(&self) -> bool {
        self.negotiated && (!self.config.direction.sends() || self.config.remote_rtp.is_none())
    }

    pub(crate) fn set_addresses(&mut self, rtp: SocketAddr, rtcp: SocketAddr) {
        self.addresses = Some((rtp, rtcp));
    }

    pub(crate) fn set_latching(&mut self, latching: Latching) {
        self.config.latching = latching;
    }

    pub(crate) fn set_answered(&mut self) {
        self.config.answered = true;
    }

    fn local(&self, codecs: &[AudioCodec], rtcp_mux: bool) -> Result<LocalMedia, MediaError> {
        let (rtp, rtcp) = self.addresses.ok_or(MediaError::NoAddress)?;
        Ok(LocalMedia {
            addr: rtp.ip(),
            rtp_port: rtp.port(),
            rtcp_port: rtcp.port(),
            rtcp_mux,
            codecs: codecs.iter().map(|codec| spec(*codec)).collect(),
            telephone_event: Some(self.telephone_event),
            direction: SdpDirection::SendRecv,
            ptime_ms: self.ptime_ms,
        })
    }

    /// Takes the offer of an INVITE; what is left of [`Self::codecs`] are the common ones in the
    /// order of the offer.
    pub(crate) fn read_offer(&mut self, bytes: &[u8]) -> Result<(), MediaError> {
        let offer = Session::parse(bytes)?;
        let local = LocalMedia {
            addr: self.local_address,
            rtp_port: 1,
            rtcp_port: 2,
            rtcp_mux: true,
            codecs: self.codecs.iter().map(|codec| spec(*codec)).collect(),
            telephone_event: Some(self.telephone_event),
            direction: SdpDirection::SendRecv,
            ptime_ms: self.ptime_ms,
        };
        let (_, common) = negotiate_offer(&offer, &local, &mut self.sdp.clone())?;
        self.codecs = common.common_codecs.iter().filter_map(codec_of).collect();
        self.remote_offer = Some(offer);
        Ok(())
    }

    /// The answer to the INVITE's offer, with the wanted codec if it was offered.
    pub(crate) fn answer(&mut self, wanted: Option<AudioCodec>) -> Result<Bytes, MediaError> {
        if let Some(answer) = &self.answer {
            return Ok(answer.clone());
        }
        let offer = self.remote_offer.take().ok_or(MediaError::State)?;
        let wanted = wanted.filter(|codec| self.codecs.contains(codec));
        let codecs = wanted.map_or_else(|| self.codecs.clone(), |codec| vec![codec]);
        let local = self.local(&codecs, true)?;
        let (answer, agreed) = negotiate_offer(&offer, &local, &mut self.sdp)?;
        self.apply(&agreed, false);
        self.answer = Some(answer.clone());
        Ok(answer)
    }

    /// True if the INVITE carried an offer that is answered, or not yet.
    pub(crate) fn has_remote_offer(&self) -> bool {
        self.remote_offer.is_some() || self.answer.is_some()
    }

    /// Our offer.
    pub(crate) fn offer(&mut self) -> Result<Bytes, MediaError> {
        let codecs = if self.negotiated { vec![self.codec()] } else { self.codecs.clone() };
        // RFC 5761 §5.1.1: a peer that does not know rtcp-mux would be told a wrong RTCP port, so
        // it is accepted but not offered.
        let local = self.local(&codecs, false)?;
        let body = self.sdp.offer(&local);
        self.local_offer = Some(local);
        Ok(body)
    }

    /// The answer to our offer.
    pub(crate) fn read_answer(&mut self, bytes: &[u8]) -> Result<(), MediaError> {
        let (agreed, sdp) = self.agree(bytes)?;
        self.sdp = sdp;
        self.local_offer = None;
        self.early.clear();
        self.apply(&agreed, true);
        Ok(())
    }

    /// An answer in a 1xx. It leaves the offer open: another fork, or the final answer, may say
    /// something else.
    pub(crate) fn read_early_answer(
        &mut self,
        fork: &str,
        bytes: &Bytes,
    ) -> Result<(), MediaError> {
        let (agreed, _) = self.agree(bytes)?;
        self.apply(&agreed, true);
        self.early.retain(|(tag, _)| tag != fork);
        if self.early.len() < EARLY_MAX {
            self.early.push((fork.to_owned(), bytes.clone()));
        }
        Ok(())
    }

    fn agree(&self, bytes: &[u8]) -> Result<(Negotiated, SessionState), MediaError> {
        let answer = Session::parse(bytes)?;
        let local = self.local_offer.as_ref().ok_or(MediaError::State)?;
        let mut sdp = self.sdp.clone();
        Ok((negotiate_answer(&answer, local, &mut sdp)?, sdp))
    }

    /// The final response of this fork had no session description: what its early one said holds,
    /// or the latest of all if it had none.
    pub(crate) fn confirm_early_answer(&mut self, fork: &str) -> bool {
        let of_fork = self.early.iter().find(|(tag, _)| tag == fork);
        if let Some(answer) = of_fork.map(|(_, answer)| answer.clone())
            && self.read_answer(&answer).is_ok()
        {
            return true;
        }
        self.keep_session()
    }

    /// The answer to our offer never came, but there is a session: it stays as it was.
    pub(crate) fn keep_session(&mut self) -> bool {
        if self.negotiated {
            self.local_offer = None;
        }
        self.negotiated
    }

    /// Answers a later offer of the endpoint. The codec stays.
    pub(crate) fn answer_again(&mut self, bytes: &[u8]) -> Result<Bytes, MediaError> {
        let offer = Session::parse(bytes)?;
        let local = self.local(&[self.codec()], true)?;
        let (answer, agreed) = negotiate_offer(&offer, &local, &mut self.sdp)?;
        self.apply(&agreed, false);
        // It may have moved behind its NAT and still name the same private address.
        self.allow_latching();
        Ok(answer)
    }

    fn allow_latching(&mut self) {
        self.config.latch_epoch = self.config.latch_epoch.wrapping_add(1);
    }

    fn apply(&mut self, agreed: &Negotiated, we_offered: bool) {
        let codec = codec_of(&agreed.codec).unwrap_or(self.config.send.codec);
        self.config.send = PayloadMapping { payload_type: agreed.codec.payload_type, codec };
        let received = PayloadMapping { payload_type: agreed.receive_payload_type, codec };
        self.config.receive = vec![received];
        if we_offered {
            // The endpoint may switch among all that it accepted (RFC 3264 §6.1), under our numbers.
            let others = agreed.common_codecs.iter().filter_map(codec_of);
            for codec in others.filter(|other| *other != codec).take(LegConfig::CODECS_MAX - 1) {
                let payload_type = codec.static_payload_type();
                self.config.receive.push(PayloadMapping { payload_type, codec });
            }
        }
        self.config.telephone_event_receive = agreed.telephone_event_receive;
        self.config.telephone_event_send = agreed.telephone_event_send;
        self.config.ptime_ms = u32::from(agreed.ptime_ms);
        if self.config.remote_rtp != agreed.remote_rtp {
            self.allow_latching();
        }
        self.config.remote_rtp = agreed.remote_rtp;
        self.config.remote_rtcp = agreed.remote_rtcp;
        self.config.rtcp_mux = agreed.rtcp_mux;
        self.config.direction = direction_of(agreed.direction);
        self.negotiated = true;
    }
}

#[cfg(test)]
mod tests {
    use link_proto::NodeId;
    use rand::SeedableRng as _;
    use sip_core::SipConfig;

    use super::*;

    fn media(codecs: &[AudioCodec]) -> LegMedia {
        let config = EdgeConfig::new(NodeId::from("e"), SipConfig::new("10.0.0.1", 5060, [1; 32]));
        let mut rng = StdRng::seed_from_u64(1);
        let mut media = LegMedia::new(&config, codecs.to_vec(), Latching::SdpNetwork, &mut rng);
        media.set_addresses("10.0.0.1:4000".parse().unwrap(), "10.0.0.1:4001".parse().unwrap());
        media
    }

    const BOTH: &[AudioCodec] = &[AudioCodec::Pcmu, AudioCodec::Pcma];

    fn sdp(formats: &str, more: &str) -> String {
        format!(
            "v=0\r\no=- 1 1 IN IP4 10.9.9.9\r\ns=-\r\nc=IN IP4 10.9.9.9\r\nt=0 0\r\n\
             m=audio 7000 RTP/AVP {formats}\r\na=rtpmap:96 telephone-event/8000\r\n{more}"
        )
    }

    #[test]
    fn the_wanted_codec_is_chosen_if_offered() {
        for (formats, wanted, expect) in [
            ("8 0 96", None, AudioCodec::Pcma),
            ("8 0 96", Some(AudioCodec::Pcmu), AudioCodec::Pcmu),
            ("8 96", Some(AudioCodec::Pcmu), AudioCodec::Pcma),
        ] {
            let mut media = media(BOTH);
            media.read_offer(sdp(formats, "").as_bytes()).unwrap();
            let answer = media.answer(wanted).unwrap();
            assert_eq!(media.codec(), expect, "{formats}");
            assert_eq!(media.config().telephone_event_receive, Some(96));
            assert_eq!(media.config().remote_rtcp, Some("10.9.9.9:7001".parse().unwrap()));
            assert_eq!(media.answer(None).unwrap(), answer, "183 and 200 are the same");
        }
        assert!(media(BOTH).read_offer(sdp("18", "").as_bytes()).is_err());
        assert!(media(BOTH).read_offer(b"v=0").is_err());
        let other_family = sdp("0", "").replace("c=IN IP4 10.9.9.9", "c=IN IP6 2001:db8::1");
        assert!(media(BOTH).read_offer(other_family.as_bytes()).is_err());
    }

    #[test]
    fn an_early_answer_may_be_replaced() {
        let mut media = media(BOTH);
        media.offer().unwrap();
        media.read_early_answer("a", &sdp("0 96", "").into()).unwrap();
        assert!(media.awaits_answer() && media.is_negotiated());
        let epoch = media.config().latch_epoch;
        media.read_early_answer("a", &sdp("0 96", "").into()).unwrap();
        assert_eq!(media.config().latch_epoch, epoch, "a repeated 183 opens no door");
        media.read_answer(sdp("8", "a=rtcp-mux\r\n").as_bytes()).unwrap();
        assert_eq!(media.codec(), AudioCodec::Pcma);
        assert!(!media.awaits_answer());
        assert_eq!(media.config().telephone_event_send, None);
    }

    #[test]
    fn an_answer_without_description_is_that_of_its_fork() {
        for (fork, port) in [("a", 7000), ("b", 7002), ("c", 7002)] {
            let mut media = media(BOTH);
            media.offer().unwrap();
            media.read_early_answer("a", &sdp("0 96", "").into()).unwrap();
            let other = sdp("0 96", "").replace("7000", "7002");
            media.read_early_answer("b", &other.into()).unwrap();
            assert!(media.confirm_early_answer(fork) && !media.awaits_answer());
            let remote = media.config().remote_rtp.map(|remote| remote.port());
            assert_eq!(remote, Some(port), "{fork}");
        }
        let mut nothing = media(BOTH);
        nothing.offer().unwrap();
        assert!(!nothing.confirm_early_answer("a"));
    }

    #[test]
    fn hold_and_resume_keep_the_codec() {
        let mut media = media(BOTH);
        media.read_offer(sdp("8 0 96", "").as_bytes()).unwrap();
        media.answer(Some(AudioCodec::Pcmu)).unwrap();
        assert!(!media.is_held());
        let answer = media.answer_again(sdp("8 0 96", "a=sendonly\r\n").as_bytes()).unwrap();
        assert!(String::from_utf8_lossy(&answer).contains("a=recvonly"));
        assert!(media.is_held() && media.codec() == AudioCodec::Pcmu);
        let held_epoch = media.config().latch_epoch;
        media.answer_again(sdp("8 0 96", "a=sendrecv\r\n").as_bytes()).unwrap();
        assert!(!media.is_held() && media.config().latch_epoch > held_epoch);
        assert!(media.answer_again(sdp("8", "").as_bytes()).is_err());
        let old_style = sdp("0 96", "").replace("c=IN IP4 10.9.9.9", "c=IN IP4 0.0.0.0");
        media.answer_again(old_style.as_bytes()).unwrap();
        assert!(media.is_held());
    }
}
