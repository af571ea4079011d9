// Dark or light before anything is drawn: ?theme=, else what was chosen here, else what the system says.
const asked = new URLSearchParams(location.search).get("theme");
let chosen = null;
try {
    chosen = localStorage.getItem("theme");
} catch {
    // Storage may be forbidden; then the system's choice stands.
}
const theme = ["dark", "light"].find((name) => name === asked || name === (asked ? null : chosen));
if (theme) {
    document.documentElement.dataset.theme = theme;
}
