"""What other projects define: releases, flags, placeholders, options, shapes, floors. Data and its sources."""
