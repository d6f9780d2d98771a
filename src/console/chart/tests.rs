use super::*;

fn timeline(values: &[u64]) -> Timeline<'_> {
    let marks = || vec![(0, "1 Nov".to_owned())];
    Timeline {
        label: "Core & \"more\"",
        values,
        colour: Colour::Core,
        marks: [marks(), marks()],
        limit: None,
    }
}

fn bars(picture: &str) -> usize {
    picture.matches("<rect").count()
}

#[test]
fn a_bar_stands_for_each_value_and_a_gap_for_none() {
    let picture = timeline(&[5, 0, 3, 0, 0, 1]).draw();
    for svg in [&picture.broad, &picture.slim] {
        assert_eq!(bars(svg), 3, "{svg}");
        assert!(svg.contains("role=\"img\" aria-label=\"Core &amp; &quot;more&quot;\""), "{svg}");
        assert!(svg.contains("1 Nov") && svg.ends_with("</svg>"), "{svg}");
        assert!(!svg.contains("style="), "{svg}");
    }
}

#[test]
fn the_least_value_is_still_seen() {
    let picture = timeline(&[1_000_000, 1]).draw();
    assert_eq!(bars(&picture.broad), 2);
    assert!(!picture.broad.contains("height=\"0\""), "{}", picture.broad);
}

#[test]
fn bars_stand_on_the_ground_and_grow_with_what_they_stand_for() {
    let picture = timeline(&[10, 40]).draw();
    let number = |text: &str, name: &str| -> i32 {
        let value = text.split_once(&format!(" {name}=\"")).unwrap().1;
        value.split_once('"').unwrap().0.parse().unwrap()
    };
    let bars: Vec<_> = picture.broad.split("<rect").skip(1).collect();
    let ends: Vec<_> = bars.iter().map(|bar| (number(bar, "y"), number(bar, "height"))).collect();
    let [(low_y, low), (high_y, high)] = ends[..] else { panic!("{ends:?}") };
    assert!(high_y < low_y && (low * 4 - high).abs() <= 4, "{ends:?}");
    assert!((low_y + low - high_y - high).abs() <= 1, "{ends:?}");
}

#[test]
fn a_year_of_days_is_one_shape_and_small() {
    let values: Vec<u64> = (0..366).map(|n| n * 7919 % 1000).collect();
    let picture = timeline(&values).draw();
    assert_eq!((bars(&picture.broad), picture.broad.matches("<polygon").count()), (0, 1));
    assert!(picture.broad.len() + picture.slim.len() < 10_000, "{}", picture.broad.len());
}

#[test]
fn no_peak_is_lost_where_days_share_a_pixel() {
    let mut values = [10; 366];
    values[201] = 1_000;
    let picture = timeline(&values).draw();
    for svg in [&picture.broad, &picture.slim] {
        let shape = svg.split_once("<polygon").unwrap().1;
        let points = shape.split_once("points=\"").unwrap().1.split_once('"').unwrap().0;
        let heights =
            points.split_whitespace().map(|point| point.split_once(',').unwrap().1.parse::<i32>().unwrap());
        let (top, bottom) = (heights.clone().min().unwrap(), heights.max().unwrap());
        assert!(bottom - top > 150, "{points}");
    }
}

#[test]
fn an_empty_picture_can_be_drawn() {
    for values in [&[] as &[u64], &[0], &[0; 366]] {
        let picture = timeline(values).draw();
        assert_eq!(bars(&picture.broad), 0);
        assert!(picture.broad.ends_with("</svg>"));
    }
    assert!(draw_ranks("nothing", &[]).broad.ends_with("</svg>"));
}

#[test]
fn a_limit_is_a_line_unless_it_is_far_above_everything() {
    let line = "stroke=\"#8A3FB8\"";
    for (limit, is_drawn) in [(8, true), (50, true), (51, false), (u64::MAX, false)] {
        let mut timeline = timeline(&[10, 4]);
        timeline.limit = Some(limit);
        assert_eq!(timeline.draw().broad.contains(line), is_drawn, "{limit}");
    }
}

#[test]
fn names_are_escaped_and_cut_to_the_window() {
    let rank = |name: &str, core, premium| Rank {
        name: name.to_owned(),
        parts: vec![(core, Colour::Core), (premium, Colour::Premium)],
    };
    let long = "x".repeat(500);
    let picture = draw_ranks("By data set", &[rank("<b>&", 1_234, 66), rank(&long, 0, 0)]);
    assert!(picture.broad.contains("&lt;b&gt;&amp;") && picture.broad.contains("1,300"), "{}", picture.broad);
    assert!(!picture.slim.contains(&"x".repeat(60)) && picture.slim.contains("x…"), "{}", picture.slim);
    assert_eq!(bars(&picture.broad), 2);
}

#[test]
fn parts_of_a_whole_never_leave_it() {
    let table: [(&[u64], u64, usize); 4] =
        [(&[10, 10], 100, 3), (&[0, 0], 100, 1), (&[500, 500], 100, 2), (&[u64::MAX, u64::MAX], 0, 2)];
    for (parts, whole, rectangles) in table {
        let parts: Vec<_> = parts.iter().map(|part| (*part, Colour::Core)).collect();
        let svg = draw_share("Core budget", &parts, whole);
        assert_eq!(bars(&svg), rectangles, "{svg}");
        assert!(!svg.contains("width=\"100") || !svg.contains("x=\"1000\""), "{svg}");
    }
}
