//! A page of text, tables and figures as one HTML file that loads nothing. Pure.
//!
//! In: [`Report`], plain text throughout. Out: HTML with its styles and figures in it, no script.
//! Drops: control characters.
//! Must not know: what is reported.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::text::escape;
use super::{Figure, FigureError, svg};

/// A page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// What it is about.
    pub title: String,
    /// Paragraphs before the first section.
    pub introduction: Vec<String>,
    /// What follows.
    pub sections: Vec<Section>,
}

/// A part of a page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Section {
    /// What it is about.
    pub heading: String,
    /// Paragraphs.
    pub text: Vec<String>,
    /// Tables, after the text.
    pub tables: Vec<Table>,
    /// Figures, after the tables.
    pub figures: Vec<Figure>,
    /// Pictures side by side, after the figures.
    pub photos: Vec<Photo>,
}

/// A picture with what is to be said of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Photo {
    /// JPEG; empty where there is none any more, which is said in its place.
    pub jpeg: Vec<u8>,
    /// What it shows, line by line.
    pub caption: Vec<String>,
}

/// Cells under headings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// What each column holds.
    pub header: Vec<String>,
    /// The cells, row by row; a column in which all begin with a digit or a sign is set as numbers.
    pub rows: Vec<Vec<String>>,
}

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #222; --quiet: #555; --rule: #ccc; --paper: #fdfdfb; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e4e0; --quiet: #aaa; --rule: #444; --paper: #181816; } }
body { margin: 0 auto; padding: 2rem 1.2rem 4rem; max-width: 42rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.2rem; line-height: 1.3; margin: 2.6rem 0 .6rem; }
p { margin: 0 0 .8rem; }
.table { overflow-x: auto; margin: 1rem 0 1.4rem; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem 1.2rem .25rem 0; text-align: left; vertical-align: top; overflow-wrap: normal; }
th { border-bottom: 1px solid var(--ink); font-weight: 600; vertical-align: bottom; }
td { border-bottom: 1px solid var(--rule); }
.number { text-align: right; white-space: nowrap; }
figure { margin: 1.4rem 0 2rem; break-inside: avoid; }
figure svg { display: block; box-sizing: border-box; width: 100%; height: auto; background: #fff; border: 1px solid var(--rule); border-radius: 4px; }
figure.photo { margin: 0; }
.photos { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: 1.2rem 1rem; margin: 1rem 0 1.4rem; }
.photos img, .photos .none { display: block; width: 100%; aspect-ratio: 1; object-fit: cover; border-radius: 4px; background: var(--rule); }
.photos .none { display: grid; place-items: center; color: var(--quiet); font-size: .9rem; }
figcaption { margin-top: .5rem; font-size: .9rem; color: var(--quiet); }
@media print { :root { color-scheme: light; --ink: #000; --quiet: #333; --rule: #bbb; --paper: #fff; } body { max-width: none; padding: 0; font-size: 10pt; }
  h2 { break-after: avoid; } tr { break-inside: avoid; } thead { display: table-header-group; } .table { overflow: visible; } figure svg { max-width: 15cm; } }
";

/// `report` as an HTML document.
///
/// # Errors
/// A figure cannot be drawn, see [`svg`].
pub fn html(report: &Report) -> Result<String, FigureError> {
    let title = escape(&report.title);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n"
    );
    page.extend(report.introduction.iter().map(|text| paragraph(text)));
    for section in &report.sections {
        page.push_str(&format!("<section>\n<h2>{}</h2>\n", escape(&section.heading)));
        page.extend(section.text.iter().map(|text| paragraph(text)));
        page.extend(section.tables.iter().map(table));
        for figure in &section.figures {
            page.push_str(&format!("<figure>\n{}<figcaption>{}</figcaption>\n</figure>\n", svg(figure)?, escape(&figure.caption)));
        }
        if !section.photos.is_empty() {
            page.push_str("<div class=\"photos\">\n");
            page.extend(section.photos.iter().map(photo));
            page.push_str("</div>\n");
        }
        page.push_str("</section>\n");
    }
    page.push_str("</main>\n</body>\n</html>\n");
    Ok(page)
}

fn photo(photo: &Photo) -> String {
    let caption: Vec<String> = photo.caption.iter().map(|line| escape(line)).collect();
    let picture = if photo.jpeg.is_empty() {
        "<span class=\"none\">no picture is kept</span>".to_owned()
    } else {
        format!("<img alt=\"\" src=\"data:image/jpeg;base64,{}\">", STANDARD.encode(&photo.jpeg))
    };
    format!("<figure class=\"photo\">{picture}<figcaption>{}</figcaption></figure>\n", caption.join("<br>"))
}

fn paragraph(text: &str) -> String {
    format!("<p>{}</p>\n", escape(text))
}

fn table(table: &Table) -> String {
    let columns = table.rows.iter().map(Vec::len).chain([table.header.len()]).max().unwrap_or(0);
    let numeric: Vec<bool> = (0..columns).map(|column| is_numeric(table, column)).collect();
    let row = |cells: &[String], open: &str, close: &str| {
        let cells = cells.iter().zip(&numeric).map(|(cell, &numeric)| {
            let class = if numeric { " class=\"number\"" } else { "" };
            format!("<{open}{class}>{}</{close}>", escape(cell))
        });
        format!("<tr>{}</tr>\n", cells.collect::<String>())
    };
    let body: String = table.rows.iter().map(|cells| row(cells, "td", "td")).collect();
    format!(
        "<div class=\"table\">\n<table>\n<thead>{}</thead>\n<tbody>\n{body}</tbody>\n</table>\n</div>\n",
        row(&table.header, "th scope=\"col\"", "th").trim_end()
    )
}

/// Whether every cell of the column that says anything is a number, perhaps with a unit.
fn is_numeric(table: &Table, column: usize) -> bool {
    let mut cells = table
        .rows
        .iter()
        .filter_map(|row| row.get(column))
        .map(|cell| cell.trim_start_matches(['+', '-', '−', '<', '>', '≤', '≥', '≈', ' ']))
        .filter(|cell| !matches!(*cell, "" | "–" | "—"))
        .peekable();
    cells.peek().is_some() && cells.all(|cell| cell.starts_with(|letter: char| letter.is_ascii_digit()))
}
