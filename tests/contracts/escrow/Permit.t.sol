// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {SilentToken} from "../../../contracts/mocks/SilentToken.sol";
import {Fixture} from "../support/Fixture.sol";

/// @title depositWithPermit
contract PermitTest is Fixture {
    bytes32 private constant _PERMIT =
        keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");
    uint256 private constant _DEADLINE = START + 1 hours;

    function setUp() public override {
        super.setUp();
        vm.prank(buyer.addr);
        token.approve(address(escrow), 0);
    }

    function testFuzz_PermitDepositsWithoutAnAllowance(uint128 amount) public {
        amount = uint128(bound(amount, 1, FUNDS));
        (uint8 v, bytes32 r, bytes32 s) = _permit(buyer, amount);
        vm.expectEmit(address(escrow));
        emit IEscrow.Deposited(buyer.addr, amount);
        vm.prank(buyer.addr);
        escrow.depositWithPermit(amount, _DEADLINE, v, r, s);
        assertEq(escrow.accountOf(buyer.addr), amount);
        assertEq(token.balanceOf(address(escrow)), amount);
        assertEq(token.allowance(buyer.addr, address(escrow)), 0);
    }

    function testFuzz_PermitThatSomebodySpentFirstIsNoError(address sender, uint128 amount) public {
        amount = uint128(bound(amount, 1, FUNDS));
        (uint8 v, bytes32 r, bytes32 s) = _permit(buyer, amount);
        vm.prank(sender);
        IERC20Permit(address(token)).permit(buyer.addr, address(escrow), amount, _DEADLINE, v, r, s);
        vm.prank(buyer.addr);
        escrow.depositWithPermit(amount, _DEADLINE, v, r, s);
        assertEq(escrow.accountOf(buyer.addr), amount);
    }

    function test_PermitThatIsWrongNeedsAnAllowance() public {
        (uint8 v, bytes32 r, bytes32 s) = _permit(key, 10);
        _refused(10, v, r, s);
        vm.startPrank(buyer.addr);
        token.approve(address(escrow), 10);
        escrow.depositWithPermit(10, _DEADLINE, v, r, s);
        assertEq(escrow.accountOf(buyer.addr), 10);
    }

    function test_PermitForLessThanTheAmountIsRefused() public {
        (uint8 v, bytes32 r, bytes32 s) = _permit(buyer, 9);
        _refused(10, v, r, s);
    }

    function test_PermitPastItsDeadlineIsRefused() public {
        (uint8 v, bytes32 r, bytes32 s) = _permit(buyer, 10);
        vm.warp(_DEADLINE + 1);
        _refused(10, v, r, s);
    }

    function test_PermitWorksOnce() public {
        (uint8 v, bytes32 r, bytes32 s) = _permit(buyer, 10);
        vm.prank(buyer.addr);
        escrow.depositWithPermit(10, _DEADLINE, v, r, s);
        _refused(10, v, r, s);
    }

    function test_PermitOfSomebodyElseMovesNothing() public {
        (uint8 v, bytes32 r, bytes32 s) = _permit(buyer, 10);
        vm.expectRevert(_above(10));
        vm.prank(stranger);
        escrow.depositWithPermit(10, _DEADLINE, v, r, s);
        assertEq(token.balanceOf(buyer.addr), FUNDS);
    }

    function test_PermitRefusesZero() public {
        vm.expectRevert(IEscrow.Escrow_ZeroAmount.selector);
        vm.prank(buyer.addr);
        escrow.depositWithPermit(0, _DEADLINE, 27, 0, 0);
    }

    function test_PermitOfATokenThatKnowsNoneNeedsAnAllowanceOnly() public {
        SilentToken silent = new SilentToken();
        IEscrow other = _deployEscrow(address(silent), address(registry), treasury, MAX_SESSION);
        silent.faucet(address(this), 10);
        other.depositWithPermit(10, _DEADLINE, 27, 0, 0);
        assertEq(other.accountOf(address(this)), 10);
    }

    function _refused(uint128 amount, uint8 v, bytes32 r, bytes32 s) private {
        vm.expectPartialRevert(IERC20Errors.ERC20InsufficientAllowance.selector);
        vm.prank(buyer.addr);
        escrow.depositWithPermit(amount, _DEADLINE, v, r, s);
    }

    function _permit(Actor memory signer, uint256 amount) private view returns (uint8, bytes32, bytes32) {
        uint256 nonce = IERC20Permit(address(token)).nonces(buyer.addr);
        bytes32 structHash =
            keccak256(abi.encode(_PERMIT, buyer.addr, address(escrow), amount, nonce, _DEADLINE));
        bytes32 domain = IERC20Permit(address(token)).DOMAIN_SEPARATOR();
        return vm.sign(signer.secret, MessageHashUtils.toTypedDataHash(domain, structHash));
    }

    function _above(uint256 amount) private view returns (bytes memory) {
        return
            abi.encodeWithSelector(IERC20Errors.ERC20InsufficientAllowance.selector, address(escrow), 0, amount);
    }
}
