"""Checks signatures with the stock validator.

    validate.py TOKEN < REQUESTS.json

REQUESTS is a list of {"url", "form": [[name, value], ...], "signature"}. Every one must be valid,
and none with one letter of a value, of the URL or of the secret changed.
"""

import json
import sys

from twilio.request_validator import RequestValidator


class MultiDict(dict):
    """Repeated names, as web frameworks hand them over."""

    def __init__(self, pairs):
        super().__init__(pairs)
        self.pairs = pairs

    def getall(self, name):
        return [value for key, value in self.pairs if key == name]


def main():
    token = sys.argv[1]
    requests = json.load(sys.stdin)
    right, wrong = RequestValidator(token), RequestValidator(token + "x")
    for request in requests:
        pairs = [tuple(pair) for pair in request["form"]]
        url, signature = request["url"], request["signature"]
        assert right.validate(url, MultiDict(pairs), signature), request
        assert not wrong.validate(url, MultiDict(pairs), signature), request
        assert not right.validate(url + "x", MultiDict(pairs), signature), request
        if pairs:
            name, value = pairs[0]
            assert not right.validate(url, MultiDict([(name, value + "x")] + pairs[1:]), signature)
    print(len(requests), "signatures")


main()
