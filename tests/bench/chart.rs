//! Horizontal bars in SVG, readable on a light and on a dark page.

use std::fmt::Write as _;

const WIDTH: f64 = 740.0;
const LABEL: f64 = 300.0;
const ROW: f64 = 34.0;
const TOP: f64 = 44.0;

/// One bar with its name.
#[derive(Debug)]
pub(crate) struct Bar<'a> {
    name: &'a str,
    value: f64,
    unit: &'a str,
}

impl<'a> Bar<'a> {
    /// `value` is not negative.
    pub(crate) fn new(name: &'a str, value: f64, unit: &'a str) -> Self {
        Self { name, value, unit }
    }
}

/// A picture of the bars, the longest filling the width.
pub(crate) fn bars(title: &str, bars: &[Bar<'_>]) -> String {
    let longest = bars.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
    let mut svg = String::new();
    let mut y = TOP;
    for bar in bars {
        let length = (WIDTH - LABEL - 110.0) * bar.value / longest;
        let colour = if bar.name.starts_with("husk") { "#c2571a" } else { "#7a8794" };
        let middle = y + ROW * 0.5 + 1.0;
        let _ = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{middle:.0}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{LABEL:.0}\" y=\"{:.0}\" width=\"{length:.1}\" height=\"20\" rx=\"3\" fill=\"{colour}\"/>\
             <text x=\"{:.1}\" y=\"{middle:.0}\">{:.1} {}</text>",
            LABEL - 10.0,
            bar.name,
            y + 2.0,
            LABEL + length + 8.0,
            bar.value,
            bar.unit
        );
        y += ROW;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {height:.0}\" width=\"{WIDTH:.0}\" \
         height=\"{height:.0}\" font-family=\"sans-serif\" font-size=\"13\">\n<style>text{{fill:#24292f}}\
         @media(prefers-color-scheme:dark){{text{{fill:#e6edf3}}}}</style>\n\
         <text x=\"10\" y=\"24\" font-size=\"15\" font-weight=\"bold\">{title}</text>\n{svg}</svg>\n",
        height = y + 10.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_values() {
        let svg = bars("t", &[Bar::new("husk-vmm", 1.0, "ms"), Bar::new("other", 2.0, "ms")]);
        assert!(svg.contains("width=\"165.0\"") && svg.contains("width=\"330.0\""), "{svg}");
        assert_eq!(svg.matches("<rect").count(), 2);
    }
}
