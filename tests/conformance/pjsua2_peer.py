"""One phone on pjsua2: calls or answers, plays a WAV file, records what it hears, may press keys.

    pjsua2_peer.py answer ADDRESS:PORT PLAY.wav RECORD.wav SECONDS
    pjsua2_peer.py call   ADDRESS:PORT PLAY.wav RECORD.wav SECONDS sip:TARGET [KEYS]

Before the role may stand --codec=PCMA (speaks no other; PCMU if not said) and --hold=AT-UNTIL (puts
the other side on hold between these seconds of the conversation, hangs up one second after
resuming it).

Prints "ready", then a JSON object with what it saw. Ends when the call has ended or after SECONDS.
"""

import json
import sys
import time

import pjsua2 as pj

SEEN = {"states": [], "keys": "", "rx": 0, "tx": 0, "lost": 0, "reason": ""}


class Call(pj.Call):
    def __init__(self, account, phone, call_id=pj.PJSUA_INVALID_ID):
        super().__init__(account, call_id)
        self.phone = phone

    def onCallState(self, prm):
        info = self.getInfo()
        SEEN["states"].append(info.stateText)
        if info.state == pj.PJSIP_INV_STATE_DISCONNECTED:
            SEEN["reason"] = info.lastReason
            self.phone.ended = True

    def onCallMediaState(self, prm):
        info = self.getInfo()
        for index, media in enumerate(info.media):
            if media.type == pj.PJMEDIA_TYPE_AUDIO and media.status == pj.PJSUA_CALL_MEDIA_ACTIVE:
                audio = self.getAudioMedia(index)
                self.phone.player.startTransmit(audio)
                audio.startTransmit(self.phone.recorder)
                self.phone.active_at = self.phone.active_at or time.monotonic()

    def onStreamDestroyed(self, prm):
        stat = self.getStreamStat(prm.streamIdx).rtcp
        SEEN["rx"], SEEN["tx"] = stat.rxStat.pkt, stat.txStat.pkt
        SEEN["lost"] = stat.rxStat.loss

    def onDtmfDigit(self, prm):
        SEEN["keys"] += prm.digit


class Account(pj.Account):
    def __init__(self, phone):
        super().__init__()
        self.phone = phone

    def onIncomingCall(self, prm):
        # The reference has to live as long as the call.
        self.phone.call = Call(self, self.phone, prm.callId)
        answer = pj.CallOpParam()
        answer.statusCode = 200
        self.phone.call.answer(answer)


class Phone:
    def __init__(self):
        self.call = None
        self.ended = False
        self.active_at = None
        self.held = None
        self.player = None
        self.recorder = None


def endpoint(address, port, codec):
    config = pj.EpConfig()
    config.logConfig.level = 1
    config.logConfig.consoleLevel = 1
    config.uaConfig.threadCnt = 0
    config.uaConfig.mainThreadOnly = True
    config.medConfig.clockRate = 8000
    config.medConfig.sndClockRate = 8000
    config.medConfig.noVad = True
    config.medConfig.ecTailLen = 0
    ep = pj.Endpoint()
    ep.libCreate()
    ep.libInit(config)
    ep.audDevManager().setNullDev()
    transport = pj.TransportConfig()
    transport.port = port
    transport.boundAddress = address
    transport.publicAddress = address
    ep.transportCreate(pj.PJSIP_TRANSPORT_UDP, transport)
    ep.libStart()
    for known in ep.codecEnum2():
        ep.codecSetPriority(known.codecId, 255 if known.codecId.startswith(codec + "/") else 0)
    return ep


def hold(phone, began, until):
    """What of a hold is due."""
    talked = time.monotonic() - phone.active_at if phone.active_at else 0
    if phone.held is None and talked > began:
        phone.held = True
        phone.call.setHold(pj.CallOpParam(True))
    elif phone.held and talked > until:
        phone.held = False
        resume = pj.CallOpParam(True)
        resume.opt.flag = pj.PJSUA_CALL_UNHOLD
        phone.call.reinvite(resume)
    elif phone.held is False and talked > until + 1:
        phone.call.hangup(pj.CallOpParam())
        phone.held = True
        phone.active_at = None


def main():
    options = dict(arg[2:].split("=", 1) for arg in sys.argv[1:] if arg.startswith("--"))
    args = [arg for arg in sys.argv[1:] if not arg.startswith("--")]
    role, at, play, record, seconds = args[:5]
    address, port = at.rsplit(":", 1)
    ep = endpoint(address, int(port), options.get("codec", "PCMU"))
    holds = [float(second) for second in options.get("hold", "").split("-") if second]
    phone = Phone()
    config = pj.AccountConfig()
    config.idUri = f"sip:pjsua@{at}"
    config.mediaConfig.transportConfig.boundAddress = address
    config.mediaConfig.transportConfig.publicAddress = address
    account = Account(phone)
    account.create(config)
    phone.player = pj.AudioMediaPlayer()
    phone.player.createPlayer(play)
    phone.recorder = pj.AudioMediaRecorder()
    phone.recorder.createRecorder(record)
    print("ready", flush=True)
    keys = args[6] if len(args) > 6 else ""
    if role == "call":
        phone.call = Call(account, phone)
        phone.call.makeCall(args[5], pj.CallOpParam(True))
    end = time.monotonic() + float(seconds)
    while not phone.ended and time.monotonic() < end:
        ep.libHandleEvents(10)
        if keys and phone.active_at and time.monotonic() > phone.active_at + 1.5:
            phone.call.dialDtmf(keys)
            keys = ""
        if holds and not phone.ended:
            hold(phone, *holds)
    print(json.dumps(SEEN), flush=True)
    # An object that outlives the library aborts the process: let go of all of them first.
    phone.call = phone.player = phone.recorder = None
    account.shutdown()
    del account
    ep.libDestroy()
    return 0 if phone.ended else 1


sys.exit(main())
