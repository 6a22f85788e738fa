"""Makes control/core/data/geography.txt out of the metadata and geocoding data of libphonenumber.

    pip install phonenumbers && generate.py > control/core/data/geography.txt

The data is that of Google's libphonenumber (Apache-2.0), as the Python package `phonenumbers` carries it.
"""

import itertools
import random
import re

import phonenumbers
from phonenumbers.geodata import GEOCODE_DATA

STATES = {
    "Alabama": "AL", "Alaska": "AK", "Arizona": "AZ", "Arkansas": "AR", "California": "CA",
    "Colorado": "CO", "Connecticut": "CT", "Delaware": "DE", "Washington D.C.": "DC", "Florida": "FL",
    "Georgia": "GA", "Hawaii": "HI", "Idaho": "ID", "Illinois": "IL", "Indiana": "IN", "Iowa": "IA",
    "Kansas": "KS", "Kentucky": "KY", "Louisiana": "LA", "Maine": "ME", "Maryland": "MD",
    "Massachusetts": "MA", "Michigan": "MI", "Minnesota": "MN", "Mississippi": "MS", "Missouri": "MO",
    "Montana": "MT", "Nebraska": "NE", "Nevada": "NV", "New Hampshire": "NH", "New Jersey": "NJ",
    "New Mexico": "NM", "New York": "NY", "North Carolina": "NC", "North Dakota": "ND", "Ohio": "OH",
    "Oklahoma": "OK", "Oregon": "OR", "Pennsylvania": "PA", "Rhode Island": "RI",
    "South Carolina": "SC", "South Dakota": "SD", "Tennessee": "TN", "Texas": "TX", "Utah": "UT",
    "Vermont": "VT", "Virginia": "VA", "Washington State": "WA", "West Virginia": "WV",
    "Wisconsin": "WI", "Wyoming": "WY",
    "Alberta": "AB", "British Columbia": "BC", "British Colombia": "BC", "Manitoba": "MB",
    "New Brunswick": "NB", "Newfoundland and Labrador": "NL", "Ontario": "ON", "Quebec": "QC",
    "Saskatchewan": "SK",
}
CODES = set(STATES.values()) | {"NS", "PE", "NT", "NU", "YT"}
# Digits of a national prefix that tell apart countries which share a calling code.
DIGITS_MAX = 4
SAMPLES = 12


def region(calling_code, national):
    number = phonenumbers.PhoneNumber(country_code=calling_code, national_number=int(national))
    if national.startswith("0"):
        number.italian_leading_zero = True
    return phonenumbers.region_code_for_number(number)


def regions_of_prefix(calling_code, prefix, lengths):
    found = set()
    for length in lengths:
        if length <= len(prefix):
            continue
        for _ in range(SAMPLES):
            rest = "".join(random.choices("0123456789", k=length - len(prefix)))
            found.add(region(calling_code, prefix + rest))
    found.discard(None)
    return found


def shared(calling_code, main, regions):
    """Lines for prefixes that belong to another country than the main one."""
    metadata = [phonenumbers.PhoneMetadata.metadata_for_region(r) for r in regions]
    lengths = sorted({n for m in metadata for n in m.general_desc.possible_length})
    found = {}
    for digits in itertools.product("0123456789", repeat=DIGITS_MAX):
        prefix = "".join(digits)
        regions_here = regions_of_prefix(calling_code, prefix, lengths)
        found[prefix] = regions_here.pop() if len(regions_here) == 1 else None
    # Ten neighbours of one country are one shorter prefix.
    for length in range(DIGITS_MAX, 1, -1):
        for digits in itertools.product("0123456789", repeat=length - 1):
            prefix = "".join(digits)
            children = {found.get(prefix + digit) for digit in "0123456789"}
            children_known = children - {None}
            if len(children_known) == 1 and children == children_known:
                for digit in "0123456789":
                    del found[prefix + digit]
                found[prefix] = children_known.pop()
    for prefix, country in sorted(found.items()):
        if country not in (None, main):
            yield f"{calling_code}{prefix} {country}"


def north_america(main):
    for area in range(200, 1000):
        ends = ("2345678", "4567890", "5550123", "9876543")
        found = {region(1, f"{area}{end}") for end in ends} - {None}
        if len(found) == 1 and found != {main}:
            yield f"1{area} {found.pop()}"


def countries():
    for calling_code in sorted(phonenumbers.COUNTRY_CODE_TO_REGION_CODE):
        regions = phonenumbers.COUNTRY_CODE_TO_REGION_CODE[calling_code]
        main = regions[0]
        if main == "001":
            continue
        yield f"{calling_code} {main}"
        if calling_code == 1:
            yield from north_america(main)
        elif len(regions) > 1:
            yield from shared(calling_code, main, regions)


def places():
    """Lines `state|city|area:exchanges;area:exchanges`; no city for a whole state."""
    by_place = {}
    for prefix, names in GEOCODE_DATA.items():
        name = names.get("en", "")
        if not prefix.startswith("1"):
            continue
        if name in STATES:
            place = (STATES[name], "")
        else:
            match = re.fullmatch(r"(.+), ([A-Z]{2})", name)
            if not match or match[2] not in CODES:
                continue
            place = (match[2], match[1])
        by_place.setdefault(place, []).append(prefix[1:])
    for (state, city), prefixes in sorted(by_place.items()):
        groups = itertools.groupby(sorted(prefixes), key=lambda prefix: prefix[:3])
        groups = [f"{area}:" + ",".join(p[3:] for p in group) for area, group in groups]
        yield f"{state}|{city}|" + ";".join(groups)


def main():
    random.seed(1)
    print("# Countries by calling code and prefix; then places of North America by area code and")
    print("# exchange. Made by tools/geography/generate.py out of the data of libphonenumber")
    print(f"# {phonenumbers.__version__}, Copyright The Libphonenumber Authors, Apache License 2.0.")
    for line in itertools.chain(countries(), ["---"], places()):
        print(line)


main()
