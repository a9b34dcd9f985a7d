// Before the page is drawn: the theme that was chosen here, if any.
const theme = localStorage.getItem("theme");
if (theme) document.documentElement.dataset.theme = theme;
