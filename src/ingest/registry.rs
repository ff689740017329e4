//! Where GStreamer keeps which elements it found.
//!
//! In: the environment. Out: a path, for whoever has to remove it.
//! Must not know: what is in it.

use std::path::PathBuf;

/// The file in which GStreamer keeps which elements it found, for this process. It does not notice a GPU that came since.
pub fn registry_file() -> PathBuf {
    let said = ["GST_REGISTRY_1_0", "GST_REGISTRY"].into_iter().find_map(std::env::var_os);
    said.map_or_else(
        || gstreamer::glib::user_cache_dir().join("gstreamer-1.0").join(format!("registry.{}.bin", std::env::consts::ARCH)),
        PathBuf::from,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_is_named_where_gstreamer_keeps_it() {
        if gstreamer::init().is_err() {
            println!("LEFT OUT: GStreamer's registry: GStreamer is not there; run script/bootstrap");
            return;
        }
        let file = registry_file();
        assert!(file.is_file(), "GStreamer has written {}", file.display());
    }
}
