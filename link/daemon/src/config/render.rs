//! Sample file and reference page out of the definitions of the keys.

use super::{Definition, What};

const COLUMNS: usize = 98;

pub(super) fn sample(definitions: &[Definition]) -> String {
    let mut text = String::new();
    for definition in definitions {
        match &definition.what {
            What::Table => {
                text.push('\n');
                comment(&mut text, definition.doc);
                text.push_str(&format!("[{}]\n", definition.path));
            }
            What::List { max } => {
                text.push('\n');
                comment(&mut text, &format!("{} Any number up to {max}.", definition.doc));
                text.push_str(&format!("# [[{}]]\n", definition.path));
            }
            What::Key { presence, value, allowed, commented } => {
                let name = definition.path.rsplit('.').next().unwrap_or_default();
                comment(&mut text, definition.doc);
                comment(&mut text, &format!("{presence}; {allowed}"));
                let mark = if *commented { "# " } else { "" };
                text.push_str(&format!("{mark}{name} = {value}\n"));
            }
        }
    }
    text.trim_start().to_owned()
}

/// Wraps at word borders.
fn comment(text: &mut String, words: &str) {
    let mut line = String::from("#");
    for word in words.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > COLUMNS {
            text.push_str(&line);
            text.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
}

pub(super) fn reference(definitions: &[Definition]) -> String {
    const HEAD: &str = "| key | default | allowed | meaning |\n|---|---|---|---|\n";
    let mut text = String::new();
    let mut headed = false;
    for definition in definitions {
        match &definition.what {
            What::Table => {
                text.push_str(&format!("\n### `[{}]`\n\n{}\n\n", definition.path, definition.doc));
                text.push_str(HEAD);
                headed = true;
            }
            What::List { max } => {
                let doc = definition.doc;
                text.push_str(&format!("\n### `[[{}]]`\n\n", definition.path));
                text.push_str(&format!("{doc} Any number up to {max}.\n\n{HEAD}"));
                headed = true;
            }
            What::Key { presence, value, allowed, .. } => {
                if !headed {
                    text.push_str(HEAD);
                    headed = true;
                }
                let default = match *presence {
                    "default" => format!("`{}`", cell(value)),
                    other => other.to_owned(),
                };
                let (path, allowed) = (&definition.path, cell(allowed));
                let doc = cell(definition.doc);
                text.push_str(&format!("| `{path}` | {default} | {allowed} | {doc} |\n"));
            }
        }
    }
    text.trim_start().to_owned()
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
