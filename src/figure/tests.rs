//! Tests of figures and reports as their readers have them: the text of the documents.

use super::*;

fn axis(scale: Scale, range: Option<(f64, f64)>) -> Axis {
    Axis { label: "rate".into(), scale, range }
}

fn series(name: &str, style: Style, points: &[(f64, f64)]) -> Series {
    Series { name: name.into(), points: points.to_vec(), style }
}

fn figure(series: Vec<Series>) -> Figure {
    let linear = || axis(Scale::Linear, Some((0.0, 10.0)));
    Figure { title: "Title".into(), caption: "Caption.".into(), x: linear(), y: linear(), series, markers: vec![] }
}

/// The numbers of every `points` attribute of these elements, in pixels.
fn points(svg: &str, element: &str) -> Vec<Vec<(f64, f64)>> {
    let of = |line: &str| -> Vec<(f64, f64)> {
        let list = line.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        list.split_whitespace()
            .map(|pair| pair.split_once(',').unwrap())
            .map(|(x, y)| (x.parse::<f64>().unwrap() / 10.0, y.parse::<f64>().unwrap() / 10.0))
            .collect()
    };
    svg.lines().filter(|line| line.starts_with(&format!("<{element} "))).map(of).collect()
}

/// The texts of a drawing.
fn texts(svg: &str) -> Vec<String> {
    svg.split("<text ").skip(1).map(|text| text.split_once('>').unwrap().1.split_once("</text>").unwrap().0.trim().to_owned()).collect()
}

/// The lines in the colour of the first name.
fn blue(svg: &str) -> Vec<Vec<(f64, f64)>> {
    let lines: String = svg.lines().filter(|line| line.contains("stroke=\"#0072B2\"")).flat_map(|line| [line, "\n"]).collect();
    points(&lines, "polyline")
}

#[test]
fn a_curve_has_its_name_beside_it_in_its_colour() {
    let drawn = svg(&figure(vec![series("curve", Style::Line, &[(0.0, 1.0), (10.0, 8.0)])])).unwrap();
    assert_eq!(texts(&drawn).iter().filter(|text| *text == "curve").count(), 1);
    assert_eq!(blue(&drawn).len(), 1, "a swatch of a legend would be a second line");
}

#[test]
fn names_without_a_place_get_a_legend() {
    let bundle: Vec<Series> = (0..6)
        .map(|i| series(&format!("curve {i}"), Style::Line, &[(0.0, f64::from(i) * 0.1), (10.0, 5.0 + f64::from(i) * 0.1)]))
        .collect();
    let drawn = svg(&figure(bundle)).unwrap();
    assert!((0..6).all(|i| texts(&drawn).contains(&format!("curve {i}"))));
    assert_eq!(blue(&drawn).len(), 2, "the curve and its swatch");
}

#[test]
fn lines_end_at_the_edges_and_skip_what_is_no_number() {
    let wild = [(-20.0, 5.0), (f64::NAN, 3.0), (5.0, f64::INFINITY), (5.0, 5.0), (7.0, 500.0)];
    let drawn = svg(&figure(vec![series("", Style::Line, &wild), series("curve", Style::Line, &wild)])).unwrap();
    let lines = blue(&drawn);
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].len(), 3);
    assert!(lines[0].iter().all(|(x, y)| (0.0..=640.0).contains(x) && (0.0..=420.0).contains(y)), "{lines:?}");
    assert!(!drawn.contains("NaN") && !drawn.contains("inf"));
}

#[test]
fn zero_has_no_place_on_a_logarithm_but_a_band_reaches_the_edge() {
    let mut logarithmic = figure(vec![series("line", Style::Line, &[(0.0, 0.01), (1.0, 0.01), (5.0, 0.1), (10.0, 0.0)])]);
    logarithmic.y = axis(Scale::Log, Some((0.001, 1.0)));
    assert_eq!(blue(&svg(&logarithmic).unwrap())[0].len(), 2 + 1, "three of four points are drawn");
    logarithmic.series = vec![series("band", Style::Band, &[(0.0, 0.0), (10.0, 0.0), (10.0, 0.1), (0.0, 0.1)])];
    let areas = points(&svg(&logarithmic).unwrap(), "polygon");
    assert_eq!(areas.len(), 2, "the card and the band");
    assert_eq!(areas[1].iter().map(|point| point.1).fold(0.0, f64::max), 370.0, "the axis is 50 pixels above the lower edge");
}

#[test]
fn a_det_curve_of_normal_scores_is_straight() {
    // Shares of the normal distribution beyond 1, 2 and 3 deviations.
    let shares = [0.15865525393145707, 0.02275013194817921, 0.0013498980316301035];
    let mut det = figure(vec![series("det", Style::Line, &[(shares[2], shares[0]), (shares[1], shares[1]), (shares[0], shares[2])])]);
    (det.x, det.y) = (axis(Scale::NormalDeviate, Some((0.001, 0.4))), axis(Scale::NormalDeviate, Some((0.001, 0.4))));
    let line = &blue(&svg(&det).unwrap())[0];
    assert!(
        (line[1].0 - (line[0].0 + line[2].0) / 2.0).abs() < 0.15 && (line[1].1 - (line[0].1 + line[2].1) / 2.0).abs() < 0.15,
        "{line:?}"
    );
}

#[test]
fn steps_are_filled_and_their_outline_leaves_the_axis_free() {
    let drawn = svg(&figure(vec![series("steps", Style::Steps, &[(1.0, 0.0), (3.0, 4.0), (4.0, 6.0), (5.0, 0.0), (9.0, 0.0)])])).unwrap();
    assert_eq!(points(&drawn, "polygon").len(), 2);
    let outline = blue(&drawn);
    assert_eq!(outline.len(), 1);
    assert_eq!(outline[0].len(), 6, "up, along, up, along, down: {outline:?}");
    assert_eq!(outline[0][0].0, outline[0][1].0);
    assert_eq!(outline[0][1].1, outline[0][2].1);
}

#[test]
fn labels_of_markers_keep_apart_and_those_out_of_range_are_left_out() {
    let mut marked = figure(vec![]);
    marked.markers = [("first threshold", 5.0), ("second threshold", 5.2), ("third", 9.9), ("beyond", 11.0)]
        .map(|(label, x)| Marker { x, label: label.into() })
        .to_vec();
    let frame = frame::Frame::new(&marked, &[]).unwrap();
    assert_eq!(frame.markers.len(), 3);
    for (index, mark) in frame.markers.iter().enumerate() {
        assert!(mark.label.left >= 0.0 && mark.label.right <= 640.0 && mark.label.bottom <= frame.plot.top, "{mark:?}");
        for other in &frame.markers[index + 1..] {
            assert!(!mark.label.overlaps(&other.label), "{mark:?} {other:?}");
            assert!(
                !(other.top < mark.label.bottom && (mark.label.left..mark.label.right).contains(&other.x)),
                "{other:?} crosses {mark:?}"
            );
        }
    }
}

#[test]
fn an_empty_figure_has_axes() {
    let mut empty = figure(vec![series("nothing", Style::Line, &[])]);
    (empty.x.range, empty.y.range) = (None, None);
    let texts = texts(&svg(&empty).unwrap());
    assert!(texts.contains(&"0.0".to_owned()) && texts.contains(&"1.0".to_owned()), "{texts:?}");
    assert!(!texts.contains(&"nothing".to_owned()));
}

#[test]
fn markup_in_a_title_is_text() {
    let mut hostile = figure(vec![series("<script>", Style::Line, &[(0.0, 1.0), (10.0, 9.0)])]);
    hostile.title = "FNMR < 1 % & \"so on\"\u{1}".into();
    let drawn = svg(&hostile).unwrap();
    assert!(texts(&drawn).iter().any(|text| text.starts_with("FNMR &lt; 1 % &amp; ")), "{:?}", texts(&drawn));
    assert!(drawn.contains("aria-label=\"FNMR &lt; 1 % &amp; &quot;so on&quot; \""));
    assert!(!drawn.contains("<script") && !drawn.contains('\u{1}'));
    assert_eq!((drawn.matches("<svg ").count(), drawn.matches("</svg>").count()), (1, 1));
}

#[test]
fn a_bad_range_names_its_axis() {
    let mut bad = figure(vec![]);
    bad.y = axis(Scale::Log, Some((0.0, 1.0)));
    assert_eq!(svg(&bad), Err(FigureError::BadRange { axis: "rate".into(), low: 0.0, high: 1.0 }));
    let report = Report { sections: vec![Section { figures: vec![bad], ..Section::default() }], ..Report::default() };
    assert!(html(&report).is_err());
}

#[test]
fn a_report_is_one_file_that_loads_nothing() {
    let table = Table {
        header: vec!["Model".into(), "FNMR".into()],
        rows: vec![vec!["a<b".into(), "0.8 %".into()], vec!["7c".into(), "–".into()]],
    };
    let photos = vec![
        Photo { jpeg: vec![0xff, 0xd8], caption: vec!["x < y".into(), "z".into()] },
        Photo { caption: vec!["gone".into()], ..Photo::default() },
    ];
    let section =
        Section { heading: "Part & parcel".into(), text: vec!["x < y".into()], tables: vec![table], figures: vec![figure(vec![])], photos };
    let page = html(&Report { title: "<Report>".into(), introduction: vec!["Hello.".into()], sections: vec![section] }).unwrap();
    for expected in [
        "<html lang=\"en\">",
        "<title>&lt;Report&gt;</title>",
        "<p>Hello.</p>",
        "<h2>Part &amp; parcel</h2>",
        "<p>x &lt; y</p>",
        "<th scope=\"col\">Model</th><th scope=\"col\" class=\"number\">FNMR</th>",
        "<td>a&lt;b</td><td class=\"number\">0.8 %</td>",
        "<figure>\n<svg ",
        "role=\"img\" aria-label=\"Title\"",
        "<figcaption>Caption.</figcaption>",
        "prefers-color-scheme: dark",
        "<img alt=\"\" src=\"data:image/jpeg;base64,/9g=\"><figcaption>x &lt; y<br>z</figcaption>",
        "<span class=\"none\">no picture is kept</span><figcaption>gone</figcaption>",
    ] {
        assert!(page.contains(expected), "{expected} is missing");
    }
    let address = page.replace("http://www.w3.org/2000/svg", "").replace("<img alt=\"\" src=\"data:image/jpeg;base64,", "");
    assert!(["http:", "https:", "<script", "<link", "<img", "url(", "@import"].iter().all(|foreign| !address.contains(foreign)));
}
