"""The home: which processes compute in it, what dead ones left behind, and what nothing reaches any more."""
