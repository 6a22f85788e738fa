"""The stock Twilio SDK starts, pauses and stops a recording of a call in progress.

    sdk_recording.py BASE_URL ACCOUNT TOKEN CALL
"""

import sys
import time

from sdk import Rebase, wait
from twilio.rest import Client


def main():
    base, account, token, sid = sys.argv[1:]
    client = Client(account, token, http_client=Rebase(base, timeout=10))
    call = client.calls(sid)
    recording = call.recordings.create(recording_channels="dual")
    assert recording.sid.startswith("RE") and recording.status == "in-progress", recording.status
    assert recording.source == "StartCallRecordingAPI" and recording.call_sid == sid
    time.sleep(1.0)
    paused = call.recordings("Twilio.CURRENT").update(status="paused", pause_behavior="skip")
    assert (paused.sid, paused.status) == (recording.sid, "paused"), paused.status
    time.sleep(1.0)
    resumed = call.recordings(recording.sid).update(status="in-progress")
    assert resumed.status == "in-progress", resumed.status
    time.sleep(1.0)
    call.recordings(recording.sid).update(status="stopped")
    done = wait("the recording", lambda: next(
        (row for row in call.recordings.list() if row.status == "completed"), None))
    assert done.sid == recording.sid and done.channels == 2, done.channels
    # Two seconds and a little, without the pause.
    assert int(done.duration) in (2, 3), done.duration


if __name__ == "__main__":
    main()
