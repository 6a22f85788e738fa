"""The stock Twilio SDK against our API, with only the base URL changed.

    sdk.py BASE_URL ACCOUNT TOKEN TO FROM URL REDIRECT_URL

TO answers and speaks. URL plays without end, REDIRECT_URL records and then plays without end.
"""

import io
import sys
import time
import wave
from urllib.parse import urlsplit, urlunsplit

import requests
from twilio.base.exceptions import TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client


class Rebase(TwilioHttpClient):
    """Sends what is meant for api.twilio.com to another place."""

    def __init__(self, base, **options):
        super().__init__(**options)
        self.base = urlsplit(base)

    def request(self, method, url, *args, **options):
        path = urlsplit(url)
        url = urlunsplit((self.base.scheme, self.base.netloc, path.path, path.query, ""))
        return super().request(method, url, *args, **options)


def wait(what, ask, seconds=12):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = ask()
        if answer:
            return answer
        time.sleep(0.05)
    raise SystemExit(f"{what}: not within {seconds} s")


def main():
    base, account, token, to, from_, url, redirect = sys.argv[1:]
    client = Client(account, token, http_client=Rebase(base, timeout=10))
    assert client.api.accounts(account).fetch().sid == account

    call = client.calls.create(
        to=to, from_=from_, url=url, timeout=20,
        status_callback=url.rsplit("/", 1)[0] + "/status",
        status_callback_event=["initiated", "ringing", "answered", "completed"],
    )
    assert call.sid.startswith("CA") and len(call.sid) == 34, call.sid
    assert call.status in ("queued", "ringing"), call.status
    assert call.start_time is None and call.end_time is None and call.duration is None
    wait("answer", lambda: client.calls(call.sid).fetch().status == "in-progress")

    listed = client.calls.list(to=to, status="in-progress", limit=5)
    assert [row.sid for row in listed] == [call.sid], listed
    fetched = client.calls(call.sid).fetch()
    assert fetched.direction == "outbound-api" and fetched._from == from_, fetched.direction
    assert fetched.start_time is not None and fetched.date_created is not None

    redirected = client.calls(call.sid).update(url=redirect, method="POST")
    assert redirected.sid == call.sid

    def finished():
        rows = client.recordings.list(call_sid=call.sid)
        return next((row for row in rows if row.status == "completed"), None)

    recording = wait("recording", finished)
    assert int(recording.duration) >= 1 and recording.channels == 1, recording.duration
    assert client.recordings(recording.sid).fetch().call_sid == call.sid
    assert [r.sid for r in client.calls(call.sid).recordings.list()] == [recording.sid]
    audio = requests.get(f"{base}{recording.uri.removesuffix('.json')}.wav", timeout=10)
    assert audio.status_code == 200, audio.status_code
    with wave.open(io.BytesIO(audio.content)) as file:
        assert file.getnframes() >= file.getframerate(), file.getnframes()

    ended = client.calls(call.sid).update(status="completed")
    assert ended.sid == call.sid
    done = wait("end", lambda: (c := client.calls(call.sid).fetch()).status == "completed" and c)
    assert int(done.duration) >= 1 and done.end_time >= done.start_time

    number = client.incoming_phone_numbers.create(phone_number="+15550456", voice_url=url)
    assert client.incoming_phone_numbers(number.sid).fetch().voice_url == url
    assert number.sid in [row.sid for row in client.incoming_phone_numbers.list()]
    assert client.recordings(recording.sid).delete() is True
    for wrong in (
        lambda: client.calls("CA" + "0" * 32).fetch(),
        lambda: client.recordings(recording.sid).fetch(),
    ):
        try:
            wrong()
        except TwilioRestException as error:
            assert (error.status, error.code) == (404, 20404), error
        else:
            raise SystemExit("no error for what is not there")
    # Paging as an SDK does it: three calls, one a page.
    for _ in range(2):
        client.calls.create(to=to, from_=from_, twiml="<Response><Hangup/></Response>")
        wait("short call", lambda: not client.calls.list(status="in-progress", limit=1)
             and not client.calls.list(status="queued", limit=1)
             and not client.calls.list(status="ringing", limit=1))
    assert len(client.calls.list(page_size=1)) == 3
    assert client.calls(call.sid).delete() is True
    assert len(list(client.calls.stream(page_size=2))) == 2
    print("all right")


if __name__ == "__main__":
    main()
