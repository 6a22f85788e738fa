//! Bytes to a small tree of elements. Bounded in size, depth and number; no DTD, no entities but
//! the five predefined ones and character references.

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

use super::{DocError, charset};
use crate::error_code::{BODY_TOO_LARGE, PARSE_FAILURE};

const DEPTH_MAX: usize = 16;
const ELEMENTS_MAX: usize = 4_096;
const ATTRIBUTES_MAX: usize = 64;

/// An element.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Element {
    /// Name without prefix.
    pub name: String,
    /// In order, each name once.
    pub attributes: Vec<(String, String)>,
    /// Children in order.
    pub children: Vec<Node>,
}

/// A child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// Character data.
    Text(String),
    /// Element.
    Element(Element),
}

impl Element {
    /// All text inside, also in nested elements, with white space at the ends removed.
    pub fn text(&self) -> String {
        let mut text = String::new();
        self.collect_text(&mut text);
        text.trim().to_owned()
    }

    fn collect_text(&self, into: &mut String) {
        for child in &self.children {
            match child {
                Node::Text(text) => into.push_str(text),
                Node::Element(element) => element.collect_text(into),
            }
        }
    }

    /// All text inside, nested elements with their tags; for SSML.
    pub fn markup(&self) -> String {
        let mut text = String::new();
        self.collect_markup(&mut text);
        text.trim().to_owned()
    }

    fn collect_markup(&self, into: &mut String) {
        for child in &self.children {
            match child {
                Node::Text(text) => into.push_str(text),
                Node::Element(element) => {
                    into.push('<');
                    into.push_str(&element.name);
                    for (name, value) in &element.attributes {
                        let value = value.replace('"', "'").replace(['<', '>'], " ");
                        into.push_str(&format!(" {name}=\"{value}\""));
                    }
                    if element.children.is_empty() {
                        into.push_str("/>");
                        continue;
                    }
                    into.push('>');
                    element.collect_markup(into);
                    into.push_str(&format!("</{}>", element.name));
                }
            }
        }
    }

    /// Value of an attribute.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Child elements in order.
    pub fn elements(&self) -> impl Iterator<Item = &Element> {
        self.children.iter().filter_map(|child| match child {
            Node::Element(element) => Some(element),
            Node::Text(_) => None,
        })
    }
}

/// Reads a whole document and returns its root.
///
/// `charset` is the parameter of the content type.
///
/// # Errors
/// 11750 above `bytes_max`, 12100 for everything that is not well-formed or not accepted.
pub fn read(bytes: &[u8], charset: Option<&str>, bytes_max: usize) -> Result<Element, DocError> {
    if bytes.len() > bytes_max {
        return Err(DocError::new(BODY_TOO_LARGE, format!("more than {bytes_max} bytes")));
    }
    let text = charset::decode(bytes, charset).map_err(|why| DocError::new(PARSE_FAILURE, why))?;
    let text = text.as_str();
    if let Some(offset) = text.find(|c| !is_allowed(c)) {
        return Err(failure(offset, "a character that XML does not allow"));
    }
    if text.trim_start().starts_with("<?xml") && !text.starts_with("<?xml") {
        return Err(failure(
            0,
            "something stands before the XML declaration, perhaps a blank line",
        ));
    }
    let mut reader = Reader::from_str(text);
    let mut builder = Builder::default();
    loop {
        let offset = usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX);
        let event = reader.read_event().map_err(|error| failure(offset, &error.to_string()))?;
        let step = match event {
            Event::Start(start) => builder.open(&start),
            Event::Empty(start) => builder.open(&start).and_then(|()| builder.close()),
            Event::End(_) => builder.close(),
            Event::Text(text) => builder.text(&text),
            Event::CData(data) => builder.text(&data),
            Event::GeneralRef(reference) => {
                let character = reference.resolve_char_ref().map_err(|e| e.to_string());
                character.and_then(|found| builder.reference(found, &reference))
            }
            Event::DocType(_) => Err("a document type is not accepted".to_owned()),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => Ok(()),
            Event::Eof => break,
        };
        step.map_err(|message| failure(offset, &message))?;
    }
    builder.finish().map_err(|message| failure(text.len(), &message))
}

/// XML 1.0 §2.2.
fn is_allowed(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

fn failure(offset: usize, message: &str) -> DocError {
    DocError::new(PARSE_FAILURE, format!("byte {offset}: {message}"))
}

#[derive(Default)]
struct Builder {
    open: Vec<Element>,
    root: Option<Element>,
    elements: usize,
}

impl Builder {
    fn open(&mut self, start: &BytesStart<'_>) -> Result<(), String> {
        self.elements += 1;
        if self.open.len() >= DEPTH_MAX || self.elements > ELEMENTS_MAX {
            return Err("too many or too deeply nested elements".to_owned());
        }
        if self.open.is_empty() && self.root.is_some() {
            return Err("more than one root element".to_owned());
        }
        let mut element = Element { name: local(start.name().0).to_owned(), ..Element::default() };
        for attribute in start.attributes() {
            let attribute = attribute.map_err(|error| error.to_string())?;
            if element.attributes.len() >= ATTRIBUTES_MAX {
                return Err("too many attributes".to_owned());
            }
            if is_of_xml(attribute.key.0) {
                continue;
            }
            let value = attribute
                .normalized_value(XmlVersion::Implicit1_0)
                .map_err(|error| error.to_string())?;
            element.attributes.push((local(attribute.key.0).to_owned(), value.into_owned()));
        }
        self.open.push(element);
        Ok(())
    }

    fn close(&mut self) -> Result<(), String> {
        let element = self.open.pop().ok_or("end without start")?;
        match self.open.last_mut() {
            Some(parent) => parent.children.push(Node::Element(element)),
            None => self.root = Some(element),
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), String> {
        match self.open.last_mut() {
            Some(element) => {
                match element.children.last_mut() {
                    Some(Node::Text(before)) => before.push_str(text),
                    _ => element.children.push(Node::Text(text.to_owned())),
                }
                Ok(())
            }
            None if text.trim().is_empty() => Ok(()),
            None => Err("text outside the root element".to_owned()),
        }
    }

    fn reference(&mut self, character: Option<char>, name: &str) -> Result<(), String> {
        if let Some(character) = character {
            if !is_allowed(character) {
                return Err(format!("character reference {name} is not allowed"));
            }
            return self.text(character.encode_utf8(&mut [0; 4]));
        }
        match name {
            "amp" => self.text("&"),
            "lt" => self.text("<"),
            "gt" => self.text(">"),
            "quot" => self.text("\""),
            "apos" => self.text("'"),
            other => Err(format!("unknown entity {other}")),
        }
    }

    fn finish(self) -> Result<Element, String> {
        if let Some(element) = self.open.last() {
            return Err(format!("element {} is not closed", element.name));
        }
        self.root.ok_or_else(|| "no root element".to_owned())
    }
}

/// Declarations of name spaces and hints at a schema say nothing about a call.
fn is_of_xml(name: &str) -> bool {
    name == "xmlns" || name.starts_with("xmlns:") || name.starts_with("xsi:")
}

fn local(name: &str) -> &str {
    name.rsplit(':').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_attributes_and_references_are_read() {
        let xml = "\u{feff}<?xml version=\"1.0\"?><!-- c --><R a='1 &amp; 2'>x &lt;&#65;<b>y</b>\
                   <![CDATA[<z>]]></R>";
        let root = read(xml.as_bytes(), None, 1000).unwrap();
        assert_eq!(root.attribute("a"), Some("1 & 2"));
        assert_eq!(root.text(), "x <Ay<z>");
        let xml =
            "<t:R xmlns:t='u' xmlns='v' xmlns:xsi='w' xsi:noNamespaceSchemaLocation='s' t:a='1'/>";
        let root = read(xml.as_bytes(), None, 1000).unwrap();
        assert_eq!((root.name.as_str(), root.attributes.len()), ("R", 1));
    }

    #[test]
    fn fbk_02_hostile_documents_are_refused() {
        let deep = "<a>".repeat(20) + &"</a>".repeat(20);
        let long = format!("<a>{}</a>", "x".repeat(70_000));
        let many = format!("<a>{}</a>", "<b/>".repeat(5_000));
        for (xml, code) in [
            ("", 12100),
            ("text", 12100),
            ("<a>", 12100),
            ("<a></b>", 12100),
            ("<a/><b/>", 12100),
            ("<a/>x", 12100),
            ("<a b='1' b='2'/>", 12100),
            ("<a>&unknown;</a>", 12100),
            ("<a b='&unknown;'/>", 12100),
            ("<a>&#xFFFFFFFF;</a>", 12100),
            ("<!DOCTYPE a [<!ENTITY x \"y\">]><a>&x;</a>", 12100),
            ("<a b=1/>", 12100),
            ("\n<?xml version='1.0'?><a/>", 12100),
            ("<a>&#1;</a>", 12100),
            ("<a b='\u{1}'/>", 12100),
            ("<?xml version='1.0' encoding='koi8-r'?><a/>", 12100),
            (deep.as_str(), 12100),
            (many.as_str(), 12100),
            (long.as_str(), 11750),
        ] {
            let shown: String = xml.chars().take(40).collect();
            assert_eq!(read(xml.as_bytes(), None, 64 * 1024).unwrap_err().code, code, "{shown}");
        }
        assert_eq!(read(b"<a>\xff</a>", None, 100).unwrap_err().code, 12100);
    }
}
