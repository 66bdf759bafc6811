"""Reports of studies, streams, fit profiles and replays."""
