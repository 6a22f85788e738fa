//! Writes session descriptions, line by line as they are held.

use bytes::Bytes;

use super::session::{Line, Media, Session};

impl Session {
    /// The description with CRLF line ends.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = String::with_capacity(512);
        write_lines(&self.lines, &mut out);
        for media in &self.media {
            write_media(media, &mut out);
        }
        Bytes::from(out)
    }
}

fn write_lines(lines: &[Line], out: &mut String) {
    for line in lines {
        out.push(line.kind);
        out.push('=');
        out.push_str(&line.value);
        out.push_str("\r\n");
    }
}

fn write_media(media: &Media, out: &mut String) {
    out.push_str(&format!("m={} {}", media.kind, media.port));
    if let Some(count) = media.port_count {
        out.push_str(&format!("/{count}"));
    }
    out.push(' ');
    out.push_str(&media.protocol);
    for format in &media.formats {
        out.push(' ');
        out.push_str(format);
    }
    out.push_str("\r\n");
    write_lines(&media.lines, out);
}
