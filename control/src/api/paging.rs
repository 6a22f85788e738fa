//! Lists in pages.

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use control_store::{Page, PageOf, PageToken};
use serde_json::{Map, Value, json};

use super::error::Failure;
use super::format::list_path;
use super::request::Ask;

const SIZE_DEFAULT: u32 = 50;
const SIZE_MAX: u32 = 1000;

/// Reads `PageSize`, `Page` and `PageToken`.
pub(super) fn page(ask: &Ask) -> Result<Page, Failure> {
    let number = |name: &str| -> Result<Option<u32>, Failure> {
        let wrong = || Failure::new(400, 20_006, format!("{name} is not a number"));
        ask.query.filter(name).map(|text| text.parse().map_err(|_| wrong())).transpose()
    };
    let size = number("PageSize")?.unwrap_or(SIZE_DEFAULT);
    if !(1..=SIZE_MAX).contains(&size) {
        let message = format!("Page size must be between 1 and {SIZE_MAX}");
        return Err(Failure::new(400, 20_007, message));
    }
    let wrong = |_| Failure::new(400, 20_006, "PageToken is not valid");
    let token = ask.query.filter("PageToken");
    let token = token.map(|text| text.parse::<PageToken>().map_err(wrong)).transpose()?;
    Ok(Page { size, number: number("Page")?.unwrap_or(0), token })
}

/// A page as JSON.
pub(super) fn list<T>(
    ask: &Ask,
    name: &str,
    page: &Page,
    rows: &PageOf<T>,
    show: impl Fn(&T) -> Value,
) -> Response {
    let start = u64::from(page.size) * u64::from(page.number);
    let count = rows.items.len() as u64;
    let next = rows.next.as_ref().map(|token| uri(ask, page.size, page.number + 1, Some(token)));
    let before = page.number.saturating_sub(1);
    let previous = rows.previous.as_ref().map(|token| uri(ask, page.size, before, Some(token)));
    let mut body = Map::new();
    body.insert(name.to_owned(), rows.items.iter().map(show).collect());
    let rest = json!({
        "first_page_uri": uri(ask, page.size, 0, None),
        "next_page_uri": next,
        "previous_page_uri": previous,
        "uri": uri(ask, page.size, page.number, page.token.as_ref()),
        "page": page.number,
        "page_size": page.size,
        "start": start,
        "end": start + count.saturating_sub(1),
    });
    if let Value::Object(rest) = rest {
        body.extend(rest);
    }
    Json(Value::Object(body)).into_response()
}

/// The list's own address with its filters and another page.
fn uri(ask: &Ask, size: u32, number: u32, token: Option<&PageToken>) -> String {
    let paging = |name: &str| matches!(name, "PageSize" | "Page" | "PageToken");
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(ask.query.0.iter().filter(|(name, _)| !paging(name)));
    query.append_pair("PageSize", &size.to_string());
    query.append_pair("Page", &number.to_string());
    if let Some(token) = token {
        query.append_pair("PageToken", &token.to_string());
    }
    format!("{}?{}", list_path(&ask.path), query.finish())
}
