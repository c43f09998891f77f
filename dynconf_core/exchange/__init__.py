"""Converted networks in the forms of other libraries, and the other way round: NIR, SpikingJelly, NeuroBench."""
