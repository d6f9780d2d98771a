fn main() {
    let path = std::env::args().nth(3).unwrap();
    let config = tollgate::config::load(std::path::Path::new(&path), &|name| std::env::var(name).ok()).unwrap();
    if let Err(error) = tollgate::server::serve(config) { eprintln!("{error}"); std::process::exit(1) }
}
