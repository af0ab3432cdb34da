//! A skip is loud, or a failure.
