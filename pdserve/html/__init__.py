"""Reports as one HTML file each: style, script, Plotly and all data are in it."""
