from xray_helpers.cli import main

main()
