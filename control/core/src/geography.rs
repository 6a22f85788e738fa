//! Where a phone number is from: country by calling code, in North America also state and city by
//! area code and exchange. Numbers do not move, their owners do: it is where the number was given
//! out. There is no public list of postal codes by exchange, so that part stays empty.

use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Made by `tools/geography/generate.py`, which says where it is from.
const DATA: &str = include_str!("../data/geography.txt");

/// Digits of the longest prefix of a country, and of a place with its leading 1.
const COUNTRY_DIGITS_MAX: usize = 7;
const PLACE_DIGITS_MAX: usize = 7;

/// A place. What the number does not tell is empty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// ISO 3166-1, two letters.
    pub country: &'static str,
    /// State or province, two letters.
    pub state: &'static str,
    /// City, as it is written.
    pub city: &'static str,
}

struct Tables {
    countries: BTreeMap<u64, &'static str>,
    /// Sorted: prefix with its leading 1, state, city.
    places: Vec<(u64, &'static str, &'static str)>,
}

static TABLES: LazyLock<Tables> = LazyLock::new(read);

fn read() -> Tables {
    let mut lines = DATA.lines();
    let countries = lines
        .by_ref()
        .take_while(|line| *line != "---")
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(prefix, country)| Some((prefix.parse().ok()?, country)))
        .collect();
    let mut places = Vec::new();
    for line in lines {
        let mut fields = line.split('|');
        let (Some(state), Some(city), Some(areas)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        for (area, exchanges) in areas.split(';').filter_map(|area| area.split_once(':')) {
            for exchange in exchanges.split(',') {
                if let Ok(prefix) = format!("1{area}{exchange}").parse() {
                    places.push((prefix, state, city));
                }
            }
        }
    }
    places.sort_unstable();
    Tables { countries, places }
}

/// The prefixes of a number, longest first.
fn prefixes(digits: &str, longest: usize) -> impl Iterator<Item = u64> {
    (1..=longest).rev().filter_map(|length| digits.get(..length)?.parse().ok())
}

/// Where a number is from: E.164 with plus, also as the user part of a SIP URI. `None` for
/// anything else, a short code for example.
pub fn of(address: &str) -> Option<Place> {
    let user = address.strip_prefix("sips:").or_else(|| address.strip_prefix("sip:"));
    let user = user.unwrap_or(address).split(['@', ';']).next()?;
    let digits = user.strip_prefix('+')?;
    if digits.len() < 7 || digits.len() > 15 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let tables = &*TABLES;
    let country = prefixes(digits, COUNTRY_DIGITS_MAX)
        .find_map(|prefix| tables.countries.get(&prefix).copied())?;
    // Without its area code a North American number tells nothing more.
    let full = digits.starts_with('1') && digits.len() == 11;
    let place = prefixes(digits, PLACE_DIGITS_MAX).filter(|_| full).find_map(|prefix| {
        let at = tables.places.binary_search_by_key(&prefix, |place| place.0).ok()?;
        tables.places.get(at)
    });
    let (state, city) = place.map_or(("", ""), |(_, state, city)| (*state, *city));
    Some(Place { country, state, city })
}

/// `{who}City`, `{who}State`, `{who}Zip`, `{who}Country` for each of `names`, if the number tells
/// anything. What it does not tell is sent empty, as in the ecosystem; cities in capitals.
pub(crate) fn params(names: [&str; 2], address: &str) -> Vec<(String, String)> {
    let Some(place) = of(address) else { return Vec::new() };
    let city = place.city.to_uppercase();
    names
        .iter()
        .flat_map(|who| {
            [
                (format!("{who}City"), city.clone()),
                (format!("{who}State"), place.state.to_owned()),
                (format!("{who}Zip"), String::new()),
                (format!("{who}Country"), place.country.to_owned()),
            ]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tel_02_the_country_of_every_calling_code_and_places_of_north_america() {
        for (number, country, state, city) in [
            ("+12012000123", "US", "NJ", "Jersey City"),
            ("+12015550123", "US", "NJ", ""),
            ("+13125550123", "US", "IL", "Chicago"),
            ("+14165550123", "CA", "ON", ""),
            ("+12425550123", "BS", "", ""),
            ("+442079460123", "GB", "", ""),
            ("+441534123456", "JE", "", ""),
            ("+4930123456", "DE", "", ""),
            ("+77011234567", "KZ", "", ""),
            ("+74951234567", "RU", "", ""),
            ("+390612345678", "IT", "", ""),
            ("+81312345678", "JP", "", ""),
            ("+27111234567", "ZA", "", ""),
            ("+15559001", "US", "", ""),
            ("sip:+12012000123@10.0.0.1;user=phone", "US", "NJ", "Jersey City"),
        ] {
            assert_eq!(of(number), Some(Place { country, state, city }), "{number}");
        }
        for none in ["77333", "sip:alice@example.net", "anonymous", "+1", "+999123456789", "+1x"] {
            assert_eq!(of(none), None, "{none}");
        }
    }

    #[test]
    fn the_table_is_whole() {
        let tables = &*TABLES;
        assert!(tables.countries.len() > 300 && tables.places.len() > 30_000);
        let codes: std::collections::BTreeSet<_> = tables.countries.values().collect();
        assert!(codes.len() > 230, "{}", codes.len());
        assert!(codes.iter().all(|code| code.len() == 2));
        assert!(tables.places.windows(2).all(|pair| pair[0].0 < pair[1].0), "each prefix once");
        assert!(tables.places.iter().all(|(prefix, state, _)| *prefix > 1_200 && state.len() == 2));
    }

    #[test]
    fn parameters_of_both_spellings() {
        let params = params(["From", "Caller"], "+12012000123");
        let get = |name: &str| params.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        assert_eq!(
            (get("FromCity"), get("CallerCity")),
            (Some("JERSEY CITY"), Some("JERSEY CITY"))
        );
        assert_eq!((get("FromState"), get("FromZip")), (Some("NJ"), Some("")));
        assert_eq!(get("CallerCountry"), Some("US"));
        assert!(super::params(["To", "Called"], "77333").is_empty());
    }
}
