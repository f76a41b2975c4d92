// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ICourt} from "../../../contracts/interfaces/ICourt.sol";
import {CaseState, Evidence, Verdict} from "../../../contracts/types/Cases.sol";
import {CourtFixture} from "../support/CourtFixture.sol";

/// @title Plain at first; its issuer may start to take 1 % of every transfer, or to refuse a receiver
contract FickleToken is ERC20 {
    bool public isTaxed;
    mapping(address account => bool refused) public blocked;

    error FickleToken_Blocked(address to);

    constructor() ERC20("Fickle Token", "FICKLE") {}

    function faucet(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function tax() external {
        isTaxed = true;
    }

    function blockAccount(address account) external {
        blocked[account] = true;
    }

    function _update(address from, address to, uint256 amount) internal override {
        if (blocked[to]) revert FickleToken_Blocked(to);
        bool isTransfer = from != address(0) && to != address(0);
        uint256 fee = isTaxed && isTransfer ? amount / 100 : 0;
        super._update(from, to, amount - fee);
        if (fee > 0) super._update(from, address(0), fee);
    }
}

contract CourtTokensTest is CourtFixture {
    function test_BondsAndBalancesOfATokenThatTakesAFeeAreRefused() public {
        _seatJurors(1);
        Evidence memory evidence = _evidence(_job(1, 10e6));
        _settleOne(sessionId, 1, 10e6);
        FickleToken(address(token)).tax();
        vm.prank(challenger);
        vm.expectRevert(_error(ICourt.Court_WrongDelta.selector, BOND - BOND / 100, BOND));
        court.challenge(evidence, EVIDENCE_HASH);
        vm.prank(jurors[0]);
        vm.expectRevert(_error(ICourt.Court_WrongDelta.selector, 99e6, 100e6));
        court.enrol(100e6);
        _assertSolvent(0);
    }

    /// @dev Whoever the token refuses cannot be paid, and that is nobody else's trouble.
    function test_CaseEndsThoughTheTokenRefusesEverybodyInIt() public {
        _seatJurors(3);
        (bytes32 caseId,) = _challengePaid(10e6);
        _draw(caseId);
        FickleToken fickle = FickleToken(address(token));
        address[4] memory refused = [challenger, buyer.addr, jurors[0], provider];
        for (uint256 i = 0; i < 4; ++i) {
            fickle.blockAccount(refused[i]);
        }
        _vote(caseId, Verdict.Guilty, Verdict.Guilty, Verdict.Guilty);
        _assertState(caseId, CaseState.Upheld);
        assertEq(_balance(buyer.addr), 20e6);
        _assertSolvent(0);
        vm.prank(jurors[0]);
        vm.expectRevert(abi.encodeWithSelector(FickleToken.FickleToken_Blocked.selector, jurors[0]));
        court.withdraw(FEE);
        vm.prank(jurors[1]);
        court.withdraw(FEE);
        _assertSolvent(0);
    }

    function _newToken() internal override returns (IERC20) {
        return new FickleToken();
    }
}
