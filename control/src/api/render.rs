//! The same answers as XML and CSV, by the extension of the path.

use axum::body::to_bytes;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Map, Value};

use super::error::Failure;

/// Longer than any page of 1,000 rows.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// What a page says about itself.
const PAGING: [&str; 8] = [
    "page",
    "page_size",
    "start",
    "end",
    "uri",
    "first_page_uri",
    "next_page_uri",
    "previous_page_uri",
];

/// `<TwilioResponse>` around a resource, a page of them, or an error.
pub(super) async fn xml(segments: &[String], response: Response) -> Response {
    let convert = |body: &Value| {
        let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<TwilioResponse>");
        match (list(body), body) {
            (Some((name, rows)), Value::Object(fields)) => page(&mut text, name, fields, rows),
            (_, Value::Object(fields)) if fields.contains_key("more_info") && is_error(fields) => {
                element(&mut text, "RestException", body);
            }
            _ => element(&mut text, &resource(segments), body),
        }
        text.push_str("</TwilioResponse>\n");
        text
    };
    converted(response, "application/xml", convert).await
}

/// One line of names and one for each resource; errors stay as they are.
pub(super) async fn csv(response: Response) -> Response {
    if !response.status().is_success() {
        return response;
    }
    let convert = |body: &Value| {
        let whole = [body.clone()];
        let rows = list(body).map_or(whole.as_slice(), |(_, rows)| rows.as_slice());
        let mut text = String::new();
        if let Some(Value::Object(first)) = rows.first() {
            let names: Vec<&String> = first.keys().collect();
            line(&mut text, names.iter().map(|name| name.as_str().into()));
            for row in rows {
                let value = |name: &&String| row.get(name.as_str()).map_or_else(String::new, plain);
                line(&mut text, names.iter().map(value));
            }
        }
        text
    };
    converted(response, "text/csv; charset=utf-8", convert).await
}

async fn converted(
    response: Response,
    kind: &'static str,
    convert: impl FnOnce(&Value) -> String,
) -> Response {
    let (mut parts, body) = response.into_parts();
    let Ok(bytes) = to_bytes(body, ANSWER_BYTES_MAX).await else {
        return Failure::internal("an answer is too long for its format").into_response();
    };
    match serde_json::from_slice::<Value>(&bytes) {
        Ok(value) => {
            parts.headers.remove(header::CONTENT_LENGTH);
            parts.headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
            Response::from_parts(parts, convert(&value).into())
        }
        // 204 has no body.
        Err(_) => Response::from_parts(parts, bytes.into()),
    }
}

/// The rows of a page and their name.
fn list(body: &Value) -> Option<(&str, &Vec<Value>)> {
    let fields = body.as_object().filter(|fields| fields.contains_key("first_page_uri"))?;
    fields.iter().find_map(|(name, value)| Some((name.as_str(), value.as_array()?)))
}

fn is_error(fields: &Map<String, Value>) -> bool {
    fields.contains_key("code") && fields.contains_key("status")
}

/// `Call` for `…/Calls/CA…` and `…/Calls`.
fn resource(segments: &[String]) -> String {
    let is_name = |segment: &&String| segment.len() != 34 && segment.as_str() != "Twilio.CURRENT";
    let name = segments.iter().rev().find(is_name).map_or("Resource", String::as_str);
    name.strip_suffix('s').unwrap_or(name).to_owned()
}

fn page(text: &mut String, name: &str, fields: &Map<String, Value>, rows: &[Value]) {
    let outer = camel(name);
    text.push('<');
    text.push_str(&outer);
    for name in PAGING {
        let value = fields.get(name).map_or_else(String::new, plain);
        text.push_str(&format!(" {}=\"{}\"", name.replace('_', ""), escaped(&value)));
    }
    text.push('>');
    let inner = outer.strip_suffix('s').unwrap_or(&outer);
    for row in rows {
        element(text, inner, row);
    }
    text.push_str(&format!("</{outer}>"));
}

fn element(text: &mut String, name: &str, value: &Value) {
    text.push_str(&format!("<{name}>"));
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                element(text, &camel(name), value);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| element(text, "Item", value)),
        other => text.push_str(&escaped(&plain(other))),
    }
    text.push_str(&format!("</{name}>"));
}

/// `date_created` → `DateCreated`. Names that could not be XML lose what makes them so.
fn camel(name: &str) -> String {
    let words = name.split('_').map(|word| {
        let mut letters = word.chars();
        letters.next().map_or_else(String::new, |first| {
            first.to_ascii_uppercase().to_string() + letters.as_str()
        })
    });
    let name: String = words.collect::<String>();
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    let letter = name.starts_with(|first: char| first.is_ascii_alphabetic());
    if letter { name } else { format!("X{name}") }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML 1.0 has no way to write other control characters.
            c if c.is_control() && !matches!(c, '\n' | '\r' | '\t') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// RFC 4180.
fn line(text: &mut String, values: impl Iterator<Item = String>) {
    for (index, value) in values.enumerate() {
        if index > 0 {
            text.push(',');
        }
        if value.contains(['"', ',', '\r', '\n']) {
            text.push_str(&format!("\"{}\"", value.replace('"', "\"\"")));
        } else {
            text.push_str(&value);
        }
    }
    text.push_str("\r\n");
}

#[cfg(test)]
mod tests {
    use axum::Json;
    use serde_json::json;

    use super::*;

    async fn text(response: Response) -> String {
        let bytes = to_bytes(response.into_body(), ANSWER_BYTES_MAX).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn resources_pages_and_errors() {
        let segments: Vec<String> =
            ["2010-04-01", "Accounts", "AC", "Calls", &"C".repeat(34)].map(str::to_owned).to_vec();
        let call = json!({ "sid": "CA1", "to": "<&\">", "price": null, "sub_uris": { "a_b": 1 } });
        let shown = xml(&segments, Json(call.clone()).into_response()).await;
        assert_eq!(shown.headers()["content-type"], "application/xml");
        assert_eq!(
            text(shown).await,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<TwilioResponse><Call><Price></Price>\
             <Sid>CA1</Sid><SubUris><AB>1</AB></SubUris><To>&lt;&amp;&quot;&gt;</To></Call>\
             </TwilioResponse>\n"
        );
        let page = json!({
            "calls": [call], "page": 0, "page_size": 50, "first_page_uri": "/x?a=1&b",
            "next_page_uri": null,
        });
        let shown = text(xml(&segments, Json(page.clone()).into_response()).await).await;
        assert!(
            shown.contains("<Calls page=\"0\" pagesize=\"50\" start=\"\" end=\"\" uri=\"\" "),
            "{shown}"
        );
        assert!(shown.contains("firstpageuri=\"/x?a=1&amp;b\" nextpageuri=\"\""), "{shown}");
        assert!(shown.contains("><Call><Price>"), "{shown}");
        let failure = Failure::not_found("/x").into_response();
        let shown = text(xml(&segments, failure).await).await;
        assert!(shown.contains("<RestException><Code>20404</Code>"), "{shown}");
        assert_eq!(
            text(csv(Json(page).into_response()).await).await,
            "price,sid,sub_uris,to\r\n,CA1,\"{\"\"a_b\"\":1}\",\"<&\"\">\"\r\n"
        );
    }
}
