//! Padding a record to a batch's length, on either side.

use ist_models::batch::{Example, IGNORED_LABEL};

use super::tokens::ignore_first_real_token;

/// Lengthens `example` to `length` with `pad_id` on the left: mask `false`, labels ignored.
///
/// The first real token then stands after padding, where nothing could predict it, so its label is
/// ignored too. Records already as long stay as they are.
pub fn pad_left(example: &mut Example, length: usize, pad_id: u32) {
    let missing = length.saturating_sub(example.input_ids.len());
    example.input_ids.splice(0..0, std::iter::repeat_n(pad_id, missing));
    example.labels.splice(0..0, std::iter::repeat_n(IGNORED_LABEL, missing));
    example.attention_mask.splice(0..0, std::iter::repeat_n(false, missing));
    ignore_first_real_token(example);
}

/// Lengthens `example` to `length` with `pad_id` on the right: mask `false`, labels ignored.
pub fn pad_right(example: &mut Example, length: usize, pad_id: u32) {
    let length = length.max(example.input_ids.len());
    example.input_ids.resize(length, pad_id);
    example.labels.resize(length, IGNORED_LABEL);
    example.attention_mask.resize(length, false);
}

#[cfg(test)]
mod tests {
    use super::super::tokens::predicted;
    use super::*;

    fn example() -> Example {
        Example { input_ids: vec![5, 6, 7], labels: vec![5, 6, 7], attention_mask: vec![true; 3] }
    }

    #[test]
    fn left_padding_predicts_the_same_tokens() {
        let mut padded = example();
        pad_left(&mut padded, 5, 9);
        assert_eq!(padded.input_ids, [9, 9, 5, 6, 7]);
        assert_eq!(padded.labels, [-100, -100, -100, 6, 7]);
        assert_eq!(padded.attention_mask, [false, false, true, true, true]);
        assert_eq!(predicted(&padded), predicted(&example()));
    }

    #[test]
    fn right_padding_predicts_the_same_tokens() {
        let mut padded = example();
        pad_right(&mut padded, 4, 9);
        assert_eq!(padded.input_ids, [5, 6, 7, 9]);
        assert_eq!(padded.labels, [5, 6, 7, -100]);
        assert_eq!(padded.attention_mask, [true, true, true, false]);
        assert_eq!(predicted(&padded), 2);
    }

    #[test]
    fn a_long_record_is_not_shortened() {
        let mut padded = example();
        pad_right(&mut padded, 2, 9);
        assert_eq!(padded, example());
        pad_left(&mut padded, 2, 9);
        assert_eq!(padded.input_ids, example().input_ids);
    }
}
